import { z } from 'zod';
import { type Fault, jsonPath } from './faults.ts';
import { type KeysDocument, keySet, spiffeBundle } from './key-set.ts';
import { type WorkloadSourceWire, workloadSourceSchema } from './source-schema.ts';
import { asParty, tokenIssuer, type TokenIssuerWire, tokenIssuerSchema } from './token-issuers.ts';
import {
  type IssuerWire,
  operatorSourceSchema,
  subjectMappings,
  type OperatorSourceWire,
  taskIssuerSchema,
  type TaskIssuerWire,
  trustOutline,
} from './trust-schema.ts';
import { operatorLogin } from './operator-login.ts';
import type {
  IssuerBase,
  JwksSource,
  OperatorSource,
  TaskIssuer,
  TokenIssuer,
  Trust,
  WorkloadSource,
} from './types.ts';
import { asIssuer, nameFault, workloadSource } from './workload-sources.ts';
import { parseReference } from './references.ts';
import { declaredNames, type Item, readItem, readList, readYaml, schemaFaults, type YamlFile } from './yaml.ts';

export interface TrustContext {
  readonly files: Readonly<Record<string, string>>;
  readonly allowDev: boolean;
  /** Names that `purposes.yaml` declares; undefined when that file could not be read. */
  readonly purposes: ReadonlySet<string> | undefined;
}

export interface TrustRead {
  readonly trust: Trust;
  /** Paths of the key sets that some issuer uses. */
  readonly keySets: ReadonlySet<string>;
}

/** Reads `trust.yaml` and the key sets that it names. Key sets in files come out as inline ones. */
export function readTrust(file: YamlFile, context: TrustContext, faults: Fault[]): TrustRead {
  const keySets = new Set<string>();
  const outline = readItem(file, [], trustOutline, faults);
  if (outline === undefined)
    return { trust: { taskIssuers: [], tokenIssuers: [], workloadSources: [], operators: [] }, keySets };
  const has = (list: string): boolean => typeof file.value === 'object' && file.value !== null && list in file.value;
  const stating = has('task_issuers') ? readList(file, ['task_issuers'], anyTaskIssuer, faults) : [];
  const issuers = stating.filter(isOfRequests);
  const tokenIssuers = stating.filter(isOfTokens);
  const sources = has('workload_sources') ? readList(file, ['workload_sources'], workloadSourceSchema, faults) : [];
  const operators = has('operators') ? readList(file, ['operators'], operatorSourceSchema, faults) : [];

  checkUnique([...issuers, ...tokenIssuers.map(asParty), ...sources.map(asIssuer), ...operators], faults);
  const declaredSources = declaredNames(outline.value.workload_sources);
  for (const item of stating) checkNamed(item, declaredSources, sources, context.purposes, faults);
  const declaredOperators = declaredNames(outline.value.operators);
  for (const item of stating) checkSubjects(item, declaredOperators, faults);
  for (const item of sources) checkTokenReview(item, faults);
  for (const item of operators) checkLogin(item, faults);

  const base = (item: Item<IssuerWire>, kind?: WorkloadSourceWire['kind']): IssuerBase => {
    const bundle = kind === 'spiffe-jwt' || kind === 'spiffe-x509';
    checkIssuer(item, context.allowDev, bundle, faults);
    const { name, dev, issuer, algorithms } = item.value;
    const document = bundle ? spiffeBundle : keySet;
    return { name, dev, issuer, algorithms, jwks: resolveKeys(item, document, context.files, keySets, faults) };
  };
  const workloadSources = sources.map(
    (item): WorkloadSource => workloadSource(item.value, base(asIssuer(item), item.value.kind)),
  );
  const trust: Trust = {
    tokenIssuers: tokenIssuers.flatMap((item) => readTokenIssuer(item, workloadSources, declaredSources, faults)),
    taskIssuers: issuers.map((item): TaskIssuer => {
      const { purposes, workloads, max_task_seconds, autonomous, proof_of_possession } = item.value;
      const more = { maxTaskSeconds: max_task_seconds, autonomous, proofOfPossession: proof_of_possession };
      return { ...base(item), purposes, workloads, ...more, ...subjectMappings(item.value) };
    }),
    workloadSources,
    operators: operators.map((item): OperatorSource => {
      const { claim, roles, groups, login } = item.value;
      return { ...base(item), claim, roles, ...(groups && { groups }), ...(login && { login: operatorLogin(login) }) };
    }),
  };
  return { trust, keySets };
}

const anyTaskIssuer = z.discriminatedUnion('kind', [taskIssuerSchema, tokenIssuerSchema], {
  error: 'must be one of task-request, token',
});
type TaskIssuerItem = Item<z.infer<typeof anyTaskIssuer>>;

function isOfRequests(item: TaskIssuerItem): item is Item<TaskIssuerWire> {
  return item.value.kind !== 'token';
}

function isOfTokens(item: TaskIssuerItem): item is Item<TokenIssuerWire> {
  return item.value.kind === 'token';
}

function readTokenIssuer(
  item: Item<TokenIssuerWire>,
  sources: readonly WorkloadSource[],
  declared: ReadonlySet<string>,
  faults: Fault[],
): readonly TokenIssuer[] {
  const { source: named, workload, purpose, purposes } = item.value;
  const unknown = (source: string): string => `there is no workload source ${source}`;
  if (!declared.has(named)) faults.push(item.fault(['source'], unknown(named)));
  if (typeof workload === 'object' && !declared.has(workload.source)) {
    faults.push(item.fault(['workload', 'source'], unknown(workload.source)));
  }
  if (typeof purpose === 'string' && !purposes.includes(purpose)) {
    faults.push(item.fault(['purpose'], 'does not stand under `purposes`'));
  }
  const source = sources.find(({ name }) => name === named);
  if (source === undefined) return [];
  if (source.kind === 'spiffe-x509') {
    faults.push(item.fault(['source'], `workloads of ${named} show certificates: there are no tokens to state tasks`));
    return [];
  }
  if (source.kind !== 'oidc' && item.value.proof_of_possession === 'required') {
    const why = `must be \`none\`: tokens of a \`${source.kind}\` source name no key`;
    faults.push(item.fault(['proof_of_possession'], why));
  }
  return [tokenIssuer(item.value, source)];
}

/**
 * One `iss` is one kind of party: a token of an operators' issuer must never pass for a task statement. A trust domain may be a source
 * of tokens and one of certificates: neither passes for the other. Names are unique across the kinds too, since audit rows and policies tell issuers by name.
 */
function checkUnique(items: readonly Item<IssuerWire>[], faults: Fault[]): void {
  items.forEach((item, index) => {
    const earlier = items.slice(0, index).map((other) => other.value);
    if (earlier.some((other) => other.name === item.value.name)) {
      faults.push(item.fault(['name'], `the name ${item.value.name} stands here twice`));
    }
    const { issuer, speaksBy } = item.value;
    const same = earlier.find((other) => other.issuer === issuer && other.speaksBy === speaksBy);
    if (same !== undefined) {
      faults.push(
        item.fault(['issuer'], `is the issuer of ${same.name} already: each party needs an issuer of its own`),
      );
    }
  });
}

function checkNamed(
  item: Item<{ purposes: readonly string[]; workloads: readonly string[] }>,
  declared: ReadonlySet<string>,
  sources: readonly Item<WorkloadSourceWire>[],
  purposes: ReadonlySet<string> | undefined,
  faults: Fault[],
): void {
  item.value.purposes.forEach((purpose, index) => {
    if (purposes !== undefined && !purposes.has(purpose)) {
      faults.push(item.fault(['purposes', index], `purposes.yaml has no purpose ${purpose}`));
    }
  });
  item.value.workloads.forEach((workload, index) => {
    const colon = workload.indexOf(':');
    const name = workload.slice(0, colon);
    const source = sources.find(({ value }) => value.name === name)?.value;
    const fault = declared.has(name)
      ? source && nameFault(source, workload.slice(colon + 1))
      : `there is no workload source ${name}`;
    if (fault !== undefined) faults.push(item.fault(['workloads', index], fault));
  });
}

function checkSubjects(
  item: Item<{ subjects: readonly { readonly operators: string }[] }>,
  declared: ReadonlySet<string>,
  faults: Fault[],
): void {
  item.value.subjects.forEach(({ operators }, index) => {
    const twice = item.value.subjects.findIndex((one) => one.operators === operators) < index;
    if (!declared.has(operators) || twice) {
      const fault = twice ? 'stands here twice' : `there is no source of operators ${operators}`;
      faults.push(item.fault(['subjects', index, 'operators'], fault));
    }
  });
}

function checkTokenReview(item: Item<WorkloadSourceWire>, faults: Fault[]): void {
  if (item.value.kind !== 'kubernetes' || item.value.token_review === undefined) return;
  const { url, ca, credential } = item.value.token_review;
  const wrong = urlFault(url, false);
  if (wrong !== undefined) faults.push(item.fault(['token_review', 'url'], wrong));
  for (const [field, text] of Object.entries({ ca, credential })) {
    const reference = parseReference(item.value.name, text);
    if (reference.kind === 'refused') faults.push(item.fault(['token_review', field], reference.why));
  }
}

function checkLogin(item: Item<OperatorSourceWire>, faults: Fault[]): void {
  const { name, dev, login } = item.value;
  if (login === undefined) return;
  for (const field of ['authorization_endpoint', 'token_endpoint'] as const) {
    const wrong = urlFault(login[field], dev);
    if (wrong !== undefined) faults.push(item.fault(['login', field], wrong));
  }
  if (login.client_secret === undefined) return;
  const reference = parseReference(name, login.client_secret);
  if (reference.kind === 'refused') faults.push(item.fault(['login', 'client_secret'], reference.why));
}

function checkIssuer(item: Item<IssuerWire>, allowDev: boolean, trustDomain: boolean, faults: Fault[]): void {
  const { dev, issuer, jwks } = item.value;
  if (dev && !allowDev) {
    faults.push(item.fault(['dev'], 'dev trust is accepted only by a broker in dev mode'));
  }
  const wrong = trustDomain ? undefined : urlFault(issuer, dev);
  if (wrong !== undefined) faults.push(item.fault(['issuer'], wrong));
  if (/[?#]/.test(issuer)) faults.push(item.fault(['issuer'], 'must have no query and no fragment'));
  if (jwks.url !== undefined) {
    const fault = urlFault(jwks.url, dev);
    if (fault !== undefined) faults.push(item.fault(['jwks', 'url'], fault));
  }
}

function urlFault(text: string, dev: boolean): string | undefined {
  if (!URL.canParse(text) || /\s/.test(text)) return 'must be an https URL';
  const url = new URL(text);
  if (url.username !== '' || url.password !== '') return 'must not hold a user or a password';
  if (url.protocol === 'https:') return undefined;
  const loopback = /^(localhost|127(\.\d{1,3}){3}|\[::1\])$/.test(url.hostname);
  if (url.protocol === 'http:' && dev && loopback) return undefined;
  return dev ? 'must be https, or http on this machine’s loopback address' : 'must be an https URL';
}

function resolveKeys(
  item: Item<IssuerWire>,
  document: z.ZodType<KeysDocument>,
  files: Readonly<Record<string, string>>,
  keySets: Set<string>,
  faults: Fault[],
): JwksSource {
  const { url, file, inline } = item.value.jwks;
  if (url !== undefined) return { url };
  if (inline !== undefined) return { inline };
  const path = file ?? '';
  const content = path.endsWith('.json') && Object.hasOwn(files, path) ? files[path] : undefined;
  if (content === undefined) {
    faults.push(item.fault(['jwks', 'file'], 'must name a .json file below the catalog folder that is there'));
    return { inline: { keys: [] } };
  }
  const read = keySets.has(path) ? [] : faults;
  keySets.add(path);
  return { inline: readKeySet(path, content, document, read) };
}

/** Read as JSON for its strictness, and as YAML (of which JSON is a part) for the lines and duplicate members. */
function readKeySet(path: string, content: string, document: z.ZodType<KeysDocument>, faults: Fault[]): KeysDocument {
  try {
    JSON.parse(content);
  } catch {
    // The engine's own message quotes the text, which may hold a private key.
    faults.push({ file: path, line: 1, path: jsonPath([]), message: 'is not valid JSON' });
    return { keys: [] };
  }
  const file = readYaml(path, content, faults);
  if (file === undefined) return { keys: [] };
  const parsed = document.safeParse(file.value);
  if (parsed.success) return parsed.data;
  faults.push(...schemaFaults(file, [], parsed.error.issues));
  return { keys: [] };
}
