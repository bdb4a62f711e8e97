import { z } from 'zod';
import { type EvaluationTest, evaluationTestSchema } from '../policy/evaluation-tests.ts';
import { guarantees, type PolicyTest, policyTestSchema } from '../policy/policy-tests.ts';
import { readPolicyFile } from '../policy/policy-file.ts';
import type { Vocabulary } from '../policy/names.ts';
import { schemaFile } from '../policy/validate.ts';
import { readChangeControl, uncontrolled } from './change-control.ts';
import { type ProviderSchemas, readEntitlements, readPurposes, readTargets } from './definitions.ts';
import { catalogDigest } from './digest.ts';
import { readEntities } from './entities.ts';
import { catalogInvalid, type Fault } from './faults.ts';
import { baseName, catalogLimits, type FileKind, fileKind } from './layout.ts';
import { readLimits } from './limits.ts';
import { privateKeyOffset } from './references.ts';
import { readSignalSources } from './signal-sources.ts';
import { readToolGateways } from './tool-gateways.ts';
import { readTrust } from './trust.ts';
import { type Catalog, type PolicySet, sensitivities } from './types.ts';
import { readWebhooks } from './webhooks.ts';
import { declaredNames, type Item, readItem, readList, readYaml, type YamlFile } from './yaml.ts';

export type { ProviderSchemas };

export interface LoadOptions {
  readonly providers: ProviderSchemas;
  /** Accept trust that is marked `dev: true`. Only a broker in dev mode does. */
  readonly allowDev: boolean;
}

/** A catalog as far as it could be read. `catalog` is to be trusted only when `faults` is empty. */
export interface Assembled {
  readonly catalog: Catalog;
  readonly tests: readonly Item<PolicyTest | EvaluationTest>[];
  readonly vocabulary: Vocabulary;
  readonly faults: readonly Fault[];
  /**
   * What no new revision may hold, though one that is active may: it was applied before the broker looked for that, and its
   * grants must still be ended by it.
   */
  readonly unbound: readonly Fault[];
}

/**
 * Reads a catalog from its files: structure, names, references, providers' own sections, policies' texts and
 * annotations. Pure. Cedar's strict validation and the policy tests are {@link checkCatalog}'s.
 * @throws MayflyError `catalog_invalid` with every fault at once, `file:line $.path` each.
 */
export function loadCatalog(files: Readonly<Record<string, string>>, options: LoadOptions): Catalog {
  const { catalog, faults } = assembleCatalog(files, options);
  if (faults.length > 0) throw catalogInvalid(faults);
  return catalog;
}

/** As {@link loadCatalog}, but gives the faults and whatever could be read beside them. */
export function assembleCatalog(given: Readonly<Record<string, string>>, options: LoadOptions): Assembled {
  const faults: Fault[] = [];
  const files = acceptableFiles(given, faults);
  const yamlOf = (kind: FileKind) => readAll(files, kind, faults);

  const declaredTargets = new Set(pathsOf(files, 'target').map(baseName));
  const shared: Fault[] = [];
  const targets = readTargets(yamlOf('target'), declaredTargets, options.providers, faults, shared);
  const { entitlements, unbound } = readEntitlements(
    yamlOf('entitlements'),
    targets,
    declaredTargets,
    options.providers,
    faults,
  );

  const [controlFile] = yamlOf('change-control');
  const [limitsFile] = yamlOf('limits');
  const limits = limitsFile === undefined ? { toxic: [], atMost: [] } : readLimits(limitsFile, entitlements, faults);

  const purposesFile = required('purposes.yaml', files, given, faults);
  const purposes = purposesFile === undefined ? new Map() : readPurposes(purposesFile, faults);
  const declaredPurposes = purposesFile === undefined ? undefined : declaredNames(purposesFile.value);
  const trustFile = required('trust.yaml', files, given, faults);
  const { trust, keySets } =
    trustFile === undefined
      ? { trust: { taskIssuers: [], tokenIssuers: [], workloadSources: [], operators: [] }, keySets: undefined }
      : readTrust(trustFile, { files, allowDev: options.allowDev, purposes: declaredPurposes }, faults);
  for (const path of pathsOf(files, 'key-set')) {
    if (keySets?.has(path) === false) faults.push(fileFault(path, 'no issuer in trust.yaml names this file'));
  }

  const webhooks = yamlOf('webhooks').flatMap((file) =>
    readWebhooks(file, { declaredTargets, allowDev: options.allowDev }, faults),
  );

  const policySet = readPolicySet(files, faults);
  const tests = yamlOf('policy-tests').flatMap((file) => readTests(file, faults));
  const catalog: Catalog = {
    digest: catalogDigest(files),
    files,
    trust,
    targets,
    entitlements,
    purposes,
    limits,
    toolGateways: trustFile === undefined ? [] : readToolGateways(trustFile, policySet.schema, faults),
    signalSources: trustFile === undefined ? [] : readSignalSources(trustFile, faults),
    webhooks,
    policySet,
    changeControl: controlFile === undefined ? uncontrolled : readChangeControl(controlFile, faults),
  };
  return { catalog, tests, vocabulary: vocabularyOf(catalog), faults, unbound: [...shared, ...unbound] };
}

function fileFault(file: string, message: string): Fault {
  return { file, line: 1, path: '', message };
}

function readAll(files: Readonly<Record<string, string>>, kind: FileKind, faults: Fault[]): readonly YamlFile[] {
  return pathsOf(files, kind).flatMap((path) => readYaml(path, files[path] ?? '', faults) ?? []);
}

function pathsOf(files: Readonly<Record<string, string>>, kind: FileKind): readonly string[] {
  return Object.keys(files)
    .filter((path) => fileKind(path) === kind)
    .sort();
}

/** The files that may be read at all: known names, within the limits, text that every store can hold. */
function acceptableFiles(given: Readonly<Record<string, string>>, faults: Fault[]): Readonly<Record<string, string>> {
  const entries = Object.entries(given);
  const bytes = entries.reduce((sum, [, content]) => sum + Buffer.byteLength(content), 0);
  if (entries.length > catalogLimits.files || bytes > catalogLimits.totalBytes) {
    const limit = `${catalogLimits.files} files and ${catalogLimits.totalBytes} bytes`;
    faults.push(fileFault('.', `a catalog holds at most ${limit}`));
    return {};
  }
  return Object.fromEntries(
    entries.filter(([path, content]) => {
      const why = refusal(path, content);
      if (why === undefined) return true;
      faults.push({ ...fileFault(path, why.message), line: why.line });
      return false;
    }),
  );
}

function refusal(path: string, content: string): { line: number; message: string } | undefined {
  if (fileKind(path) === undefined)
    return { line: 1, message: 'is not a file of the catalog: see the list of files in its documentation' };
  if (Buffer.byteLength(content) > catalogLimits.fileBytes) {
    return { line: 1, message: `is larger than ${catalogLimits.fileBytes} bytes` };
  }
  if (content.includes('\u0000') || /\p{Surrogate}/u.test(content))
    return { line: 1, message: 'is not plain UTF-8 text' };
  const key = privateKeyOffset(content);
  return key < 0
    ? undefined
    : { line: content.slice(0, key).split('\n').length, message: 'holds a private key: the catalog keeps no secrets' };
}

function required(
  path: string,
  files: Readonly<Record<string, string>>,
  given: Readonly<Record<string, string>>,
  faults: Fault[],
): YamlFile | undefined {
  if (!Object.hasOwn(given, path)) faults.push(fileFault(path, 'is missing'));
  const content = Object.hasOwn(files, path) ? files[path] : undefined;
  return content === undefined ? undefined : readYaml(path, content, faults);
}

/** What says `evaluation` is about what is asked by AuthZEN. */
function readTests(file: YamlFile, faults: Fault[]): readonly Item<PolicyTest | EvaluationTest>[] {
  return readList(file, [], z.unknown(), faults).flatMap(({ value, base }) => {
    const evaluation = typeof value === 'object' && value !== null && 'evaluation' in value;
    return (
      readItem<PolicyTest | EvaluationTest>(file, base, evaluation ? evaluationTestSchema : policyTestSchema, faults) ??
      []
    );
  });
}

/** The policies among the files of a catalog, with the types and things that they are about. */
export function readPolicySet(files: Readonly<Record<string, string>>, faults: Fault[]): PolicySet {
  const policies = pathsOf(files, 'policy').flatMap((path) => {
    const read = readPolicyFile(path, files[path] ?? '');
    faults.push(...read.faults.map((fault) => ({ ...fault, path: '' })));
    return read.policies;
  });
  const schema = files[schemaFile] ?? '';
  const entities = readAll(files, 'entities', faults).flatMap((file) => readEntities(file, schema, faults));
  return { schema, policies, entities };
}

function vocabularyOf(catalog: Catalog): Vocabulary {
  const { trust, purposes } = catalog;
  return {
    entitlements: new Set(catalog.entitlements.keys()),
    targets: new Set(catalog.targets.keys()),
    workloadSources: new Set(trust.workloadSources.map(({ name }) => name)),
    purposes: new Set(purposes.keys()),
    phases: new Set(['', ...[...purposes.values()].flatMap(({ phases }) => phases)]),
    issuers: new Set([...trust.taskIssuers, ...trust.tokenIssuers].map(({ name }) => name)),
    sensitivities: new Set<string>(sensitivities),
    dataClasses: new Set([...catalog.entitlements.values()].flatMap(({ dataClasses }) => dataClasses)),
    guarantees: new Set<string>(guarantees),
    signalSources: new Set(catalog.signalSources.map((source) => source.name)),
  };
}
