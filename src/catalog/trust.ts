import { type Fault, jsonPath } from './faults.ts';
import { keySet } from './key-set.ts';
import {
  type IssuerWire,
  operatorSourceSchema,
  taskIssuerSchema,
  trustOutline,
  workloadSourceSchema,
} from './trust-schema.ts';
import type { JwksSource, OperatorSource, TaskIssuer, Trust, WorkloadSource } from './types.ts';
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
  if (outline === undefined) return { trust: { taskIssuers: [], workloadSources: [], operators: [] }, keySets };
  const has = (list: string): boolean => typeof file.value === 'object' && file.value !== null && list in file.value;
  const issuers = has('task_issuers') ? readList(file, ['task_issuers'], taskIssuerSchema, faults) : [];
  const sources = has('workload_sources') ? readList(file, ['workload_sources'], workloadSourceSchema, faults) : [];
  const operators = has('operators') ? readList(file, ['operators'], operatorSourceSchema, faults) : [];

  checkUnique([...issuers, ...sources, ...operators], faults);
  const declaredSources = declaredNames(outline.value.workload_sources);
  for (const item of issuers) checkNamed(item, declaredSources, context.purposes, faults);

  const base = (item: Item<IssuerWire>) => {
    checkIssuer(item, context.allowDev, faults);
    const { name, dev, issuer, algorithms } = item.value;
    return { name, dev, issuer, algorithms, jwks: resolveKeys(item, context.files, keySets, faults) };
  };
  const trust: Trust = {
    taskIssuers: issuers.map((item): TaskIssuer => {
      const { purposes, workloads, max_task_seconds, autonomous, proof_of_possession } = item.value;
      const more = { maxTaskSeconds: max_task_seconds, autonomous, proofOfPossession: proof_of_possession };
      return { ...base(item), purposes, workloads, ...more };
    }),
    workloadSources: sources.map((item): WorkloadSource => ({ ...base(item), kind: item.value.kind })),
    operators: operators.map((item): OperatorSource => {
      const { claim, roles } = item.value;
      return { ...base(item), claim, roles };
    }),
  };
  return { trust, keySets };
}

/**
 * One `iss` is one kind of party: a token of an operators' issuer must never pass for a task statement. Names are
 * unique across the kinds too, since audit rows and policies tell issuers by name.
 */
function checkUnique(items: readonly Item<IssuerWire>[], faults: Fault[]): void {
  items.forEach((item, index) => {
    const earlier = items.slice(0, index).map((other) => other.value);
    if (earlier.some((other) => other.name === item.value.name)) {
      faults.push(item.fault(['name'], `the name ${item.value.name} stands here twice`));
    }
    const same = earlier.find((other) => other.issuer === item.value.issuer);
    if (same !== undefined) {
      faults.push(
        item.fault(['issuer'], `is the issuer of ${same.name} already: each party needs an issuer of its own`),
      );
    }
  });
}

function checkNamed(
  item: Item<{ purposes: readonly string[]; workloads: readonly string[] }>,
  sources: ReadonlySet<string>,
  purposes: ReadonlySet<string> | undefined,
  faults: Fault[],
): void {
  item.value.purposes.forEach((purpose, index) => {
    if (purposes !== undefined && !purposes.has(purpose)) {
      faults.push(item.fault(['purposes', index], `purposes.yaml has no purpose ${purpose}`));
    }
  });
  item.value.workloads.forEach((workload, index) => {
    const source = workload.slice(0, workload.indexOf(':'));
    if (!sources.has(source)) {
      faults.push(item.fault(['workloads', index], `there is no workload source ${source}`));
    }
  });
}

function checkIssuer(item: Item<IssuerWire>, allowDev: boolean, faults: Fault[]): void {
  const { dev, issuer, jwks } = item.value;
  if (dev && !allowDev) {
    faults.push(item.fault(['dev'], 'dev trust is accepted only by a broker in dev mode'));
  }
  const wrong = urlFault(issuer, dev);
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
  return { inline: { keys: readKeySet(path, content, read) } };
}

/** Read as JSON for its strictness, and as YAML (of which JSON is a part) for the lines and duplicate members. */
function readKeySet(path: string, content: string, faults: Fault[]): readonly Readonly<Record<string, unknown>>[] {
  try {
    JSON.parse(content);
  } catch {
    // The engine's own message quotes the text, which may hold a private key.
    faults.push({ file: path, line: 1, path: jsonPath([]), message: 'is not valid JSON' });
    return [];
  }
  const file = readYaml(path, content, faults);
  if (file === undefined) return [];
  const parsed = keySet.safeParse(file.value);
  if (parsed.success) return parsed.data.keys;
  faults.push(...schemaFaults(file, [], parsed.error.issues));
  return [];
}
