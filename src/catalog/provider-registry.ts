import { type Provider, ProviderError } from '../provider.ts';
import { namePattern } from './names.ts';

/** Imports a package by name. Injected, so that a test needs no installed package. */
export type ImportPackage = (name: string) => Promise<unknown>;

/**
 * Loads the providers named in `MAYFLY_PROVIDERS`, and no others. A type is one of ours, or the npm package
 * `mayfly-provider-<type>`, which exports a {@link Provider} as `provider` or as its default.
 * @throws ProviderError `misconfigured`, naming the type.
 */
export async function loadProviders(
  types: readonly string[],
  importPackage: ImportPackage = (name) => import(name),
): Promise<ReadonlyMap<string, Provider>> {
  const loaded = await Promise.all([...new Set(types)].map((type) => loadProvider(type, importPackage)));
  return new Map(loaded.map((provider) => [provider.type, provider]));
}

async function loadProvider(type: string, importPackage: ImportPackage): Promise<Provider> {
  if (!namePattern.test(type))
    throw new ProviderError('misconfigured', `${JSON.stringify(type)} is not a provider type`);
  const module = await importProvider(type, importPackage);
  const provider = exported(module);
  if (provider === undefined) {
    throw new ProviderError('misconfigured', `the module of provider ${type} does not export a provider`);
  }
  if (provider.type !== type) {
    throw new ProviderError('misconfigured', `the module of provider ${type} exports provider ${provider.type}`);
  }
  return provider;
}

async function importProvider(type: string, importPackage: ImportPackage): Promise<unknown> {
  switch (type) {
    case 'postgres':
      return import('../../providers/postgres/index.ts');
    case 'vault':
      return import('../../providers/vault/index.ts');
    case 'aws-sts':
      return import('../../providers/aws-sts/index.ts');
    default:
      return importPackage(`mayfly-provider-${type}`).catch((cause: unknown) => {
        const message = `provider ${type} is not part of the broker, and mayfly-provider-${type} could not be loaded`;
        throw new ProviderError('misconfigured', message, { cause });
      });
  }
}

function exported(module: unknown): Provider | undefined {
  return [member(module, 'provider'), member(module, 'default')].find(isProvider);
}

/** As much of the contract as can be seen without calling anything. */
function isProvider(value: unknown): value is Provider {
  return (
    typeof member(value, 'type') === 'string' &&
    typeof member(value, 'connect') === 'function' &&
    typeof member(member(value, 'targetSchema'), 'safeParse') === 'function' &&
    typeof member(member(value, 'entitlementSchema'), 'safeParse') === 'function'
  );
}

function member(value: unknown, key: string): unknown {
  return typeof value === 'object' && value !== null ? Reflect.get(value, key) : undefined;
}
