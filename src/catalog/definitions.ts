import type { z } from 'zod';
import type { Provider } from '../provider.ts';
import { type EntitlementWire, entitlementSchema, purposeSchema, targetSchema } from './definition-schema.ts';
import type { Fault } from './faults.ts';
import { baseName } from './layout.ts';
import { suspiciousValues } from './references.ts';
import type { EntitlementDefinition, Purpose, TargetDefinition } from './types.ts';
import { type Item, readItem, readList, schemaFaults, type YamlFile } from './yaml.ts';

/** What the catalog needs to know of the loaded providers. */
export type ProviderSchemas = ReadonlyMap<
  string,
  Pick<Provider, 'type' | 'targetSchema' | 'entitlementSchema' | 'bindsParams' | 'faults' | 'targetFaults'>
>;

export interface EntitlementsRead {
  readonly entitlements: ReadonlyMap<string, EntitlementDefinition>;
  /** Those that their provider could never issue as they are. */
  readonly unbound: readonly Fault[];
}

/** Reads `targets/*.yaml`. A target that does not fit is left out; its file name still counts as declared. @param unbound Faults that an active revision may have. */
export function readTargets(
  files: readonly YamlFile[],
  declared: ReadonlySet<string>,
  providers: ProviderSchemas,
  faults: Fault[],
  unbound: Fault[],
): ReadonlyMap<string, TargetDefinition> {
  const targets = new Map<string, TargetDefinition>();
  const sound: SoundTarget[] = [];
  for (const file of files) {
    const item = readItem(file, [], targetSchema, faults);
    if (item === undefined) continue;
    const { value } = item;
    if (value.name !== baseName(file.path)) {
      faults.push(item.fault(['name'], `must be ${baseName(file.path)}, as the file is called`));
      continue;
    }
    checkSecrets(item, 'connection', value.name, declared, faults);
    const before = faults.length;
    const connection = readSection(item, 'connection', providers.get(value.provider)?.targetSchema, faults);
    if (faults.length === before) sound.push({ item, name: value.name, type: value.provider, connection });
    if (!providers.has(value.provider)) {
      faults.push(item.fault(['provider'], `no provider ${value.provider} is loaded: name it in MAYFLY_PROVIDERS`));
    }
    targets.set(value.name, { ...value, connection });
  }
  for (const provider of providers.values()) unbound.push(...targetFaults(sound, provider));
  return targets;
}

/** One whose provider takes its connection. */
interface SoundTarget {
  readonly item: Pick<Item<unknown>, 'fault'>;
  readonly name: string;
  readonly type: string;
  readonly connection: unknown;
}

/** What a provider finds in all targets of its type together. */
function targetFaults(
  targets: readonly SoundTarget[],
  provider: Pick<Provider, 'type' | 'targetFaults'>,
): readonly Fault[] {
  const own = targets.filter(({ type }) => type === provider.type);
  if (own.length === 0) return [];
  try {
    const found = provider.targetFaults?.(new Map(own.map(({ name, connection }) => [name, connection])));
    return own.flatMap(({ item, name }) => (found?.get(name) ?? []).map((says) => item.fault(['connection'], says)));
  } catch {
    return own.map(({ item }) => item.fault(['connection'], 'the provider failed to check this'));
  }
}

/** Reads `entitlements/*.yaml`, each a list. */
export function readEntitlements(
  files: readonly YamlFile[],
  targets: ReadonlyMap<string, TargetDefinition>,
  declaredTargets: ReadonlySet<string>,
  providers: ProviderSchemas,
  faults: Fault[],
): EntitlementsRead {
  const entitlements = new Map<string, EntitlementDefinition>();
  const unbound: Fault[] = [];
  const places = new Map<string, string>();
  for (const file of files) {
    for (const item of readList(file, [], entitlementSchema, faults)) {
      const { value } = item;
      const earlier = places.get(value.name);
      if (earlier !== undefined) {
        faults.push(item.fault(['name'], `${value.name} stands in ${earlier} already`));
        continue;
      }
      places.set(value.name, file.path);
      if (!value.name.startsWith(`${value.target}/`)) {
        faults.push(item.fault(['name'], `must begin with its target: ${value.target}/`));
      }
      if (!declaredTargets.has(value.target)) {
        faults.push(item.fault(['target'], `there is no target ${value.target} (targets/${value.target}.yaml)`));
      }
      checkSecrets(item, 'provider', value.target, declaredTargets, faults);
      const type = targets.get(value.target)?.provider;
      const provider = type === undefined ? undefined : providers.get(type);
      const sound = faults.length;
      const read = definition(value, readSection(item, 'provider', provider?.entitlementSchema, faults));
      entitlements.set(value.name, read);
      if (faults.length === sound) unbound.push(...providerFaults(item, read, provider));
      if (provider !== undefined && provider.bindsParams !== true && Object.keys(value.params).length > 0) {
        const why = `the provider ${provider.type} can not bind params: every ask for this would be refused`;
        unbound.push(item.fault(['params'], why));
      }
    }
  }
  return { entitlements, unbound };
}

/** What the provider finds in an entitlement whose own section it takes. */
function providerFaults(
  item: Item<EntitlementWire>,
  { name, params, onOwnedObjects, provider: config }: EntitlementDefinition,
  provider: Pick<Provider, 'faults'> | undefined,
): readonly Fault[] {
  try {
    const found = provider?.faults?.({ name, params, onOwnedObjects, config }) ?? [];
    return found.map((says) => item.fault(['provider'], says));
  } catch {
    return [item.fault(['provider'], 'the provider failed to check this')];
  }
}

function definition(value: EntitlementWire, provider: unknown): EntitlementDefinition {
  const { name, target, sensitivity, actions, data_classes: dataClasses, sink, params } = value;
  const { max_ttl_seconds: maxTtlSeconds, on_owned_objects: onOwnedObjects, sealed_delivery: sealedDelivery } = value;
  const bounds = { maxTtlSeconds, params, provider, onOwnedObjects, sealedDelivery };
  return { name, target, sensitivity, actions, dataClasses, sink, ...bounds };
}

/** Reads `purposes.yaml`, a list. */
export function readPurposes(file: YamlFile, faults: Fault[]): ReadonlyMap<string, Purpose> {
  const purposes = new Map<string, Purpose>();
  for (const item of readList(file, [], purposeSchema, faults)) {
    const { name, description, phases, max_life_seconds: maxLifeSeconds } = item.value;
    if (purposes.has(name)) faults.push(item.fault(['name'], `${name} stands here twice`));
    purposes.set(name, { name, description, phases, maxLifeSeconds });
  }
  return purposes;
}

function checkSecrets<K extends 'connection' | 'provider'>(
  item: Item<{ readonly [key in K]: unknown }>,
  section: K,
  target: string,
  targets: ReadonlySet<string>,
  faults: Fault[],
): void {
  for (const { path, why } of suspiciousValues(target, targets, item.value[section], [section])) {
    faults.push(item.fault(path, why));
  }
}

/** The section as the provider's own schema gives it (defaults filled in), or as written while that is unknown. */
function readSection<K extends 'connection' | 'provider'>(
  item: Item<{ readonly [key in K]: unknown }>,
  section: K,
  schema: z.ZodType | undefined,
  faults: Fault[],
): unknown {
  const written = item.value[section];
  if (schema === undefined) return written;
  try {
    const parsed = schema.safeParse(written);
    if (parsed.success) return parsed.data;
    faults.push(...schemaFaults(item.file, [...item.base, section], parsed.error.issues));
  } catch {
    // A third party's schema may throw; its message may quote what it read.
    faults.push(item.fault([section], 'the provider failed to check this'));
  }
  return written;
}
