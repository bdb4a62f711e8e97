import { expect, test, vi } from 'vitest';
import { z } from 'zod';
import { ProviderError } from '../provider.ts';
import { type ImportPackage, loadProviders } from './provider-registry.ts';

const provider = {
  type: 'mysql',
  targetSchema: z.strictObject({}),
  entitlementSchema: z.strictObject({}),
  connect: () => {
    throw new Error('is not called here');
  },
};

test('the provider that comes with the broker is loaded by its name', async () => {
  const loaded = await loadProviders(['postgres']);
  expect([...loaded.keys()]).toEqual(['postgres']);
  expect(loaded.get('postgres')?.type).toBe('postgres');
});

test('a third party’s package is loaded by its name, from `provider` or the default export', async () => {
  const importPackage = vi.fn<ImportPackage>(() => Promise.resolve({ default: provider }));
  expect((await loadProviders(['mysql'], importPackage)).get('mysql')).toBe(provider);
  expect(importPackage).toHaveBeenCalledExactlyOnceWith('mayfly-provider-mysql');
  expect((await loadProviders(['mysql'], async () => ({ provider }))).get('mysql')).toBe(provider);
});

test('what is not named is never imported', async () => {
  const importPackage = vi.fn<ImportPackage>(() => Promise.resolve({ provider }));
  expect(await loadProviders([], importPackage)).toEqual(new Map());
  await loadProviders(['postgres'], importPackage);
  expect(importPackage).not.toHaveBeenCalled();
});

test.each(['../evil', 'a/b', 'Vault', '', 'node:fs'])(
  'the type %j is refused before anything is imported',
  async (type) => {
    const importPackage = vi.fn<ImportPackage>(() => Promise.resolve({ provider }));
    await expect(loadProviders([type], importPackage)).rejects.toThrow('is not a provider type');
    expect(importPackage).not.toHaveBeenCalled();
  },
);

test('a package that is not installed is refused by name', async () => {
  const failed = loadProviders(['no-such-provider']);
  await expect(failed).rejects.toBeInstanceOf(ProviderError);
  await expect(failed).rejects.toThrow('mayfly-provider-no-such-provider could not be loaded');
});

test.each([
  ['nothing', {}],
  ['no object', { provider: 'mysql' }],
  ['no connect', { provider: { ...provider, connect: undefined } }],
  ['no schema', { provider: { ...provider, targetSchema: {} } }],
])('a module that exports %s is refused', async (_what, module) => {
  await expect(loadProviders(['mysql'], () => Promise.resolve(module))).rejects.toThrow('does not export a provider');
});

test('a module that is another provider is refused', async () => {
  await expect(loadProviders(['aws'], () => Promise.resolve({ provider }))).rejects.toThrow('exports provider mysql');
});
