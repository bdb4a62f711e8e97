import { describe, expect, test } from 'vitest';
import { nameOf, unlisted } from './standby-match.ts';

const hosts: Readonly<Record<string, readonly string[]>> = {
  'db2.internal': ['10.0.0.2'],
  'db3.internal': ['10.0.0.3'],
};
const resolve = (host: string): Promise<readonly string[]> => Promise.resolve(hosts[host] ?? []);
const one = { name: 'one', address: '10.0.0.2' };
const two = { name: 'walreceiver', address: '10.0.0.3' };

describe('a standby that streams', () => {
  test.each([
    ['by its name, wherever it comes from', [{ name: 'one', host: 'elsewhere', port: 5432 }], [one], []],
    ['by its address, if the listed one has no name', [{ host: 'db3.internal', port: 5432 }], [two], []],
    [
      'not by its address, if the listed one has a name',
      [{ name: 'two', host: 'db3.internal', port: 5432 }],
      [two],
      [two],
    ],
    [
      'once only: a second behind the same address is another',
      [{ host: 'db3.internal', port: 5432 }],
      [two, two],
      [two],
    ],
    ['once only: a second under the same name is another', [{ name: 'one', host: 'x', port: 1 }], [one, one], [one]],
    [
      'by name before by address, in whatever order they are listed',
      [
        { host: 'db2.internal', port: 5432 },
        { name: 'one', host: 'db2.internal', port: 5433 },
      ],
      [one, { name: 'other', address: '10.0.0.2' }],
      [],
    ],
    ['not when the host cannot be resolved', [{ host: 'nowhere', port: 5432 }], [two], [two]],
    [
      'not through a local socket without a name',
      [{ host: 'db2.internal', port: 5432 }],
      [{ name: 'x', address: null }],
      [{ name: 'x', address: null }],
    ],
    ['not where none is listed', [], [one, two], [one, two]],
  ] as const)('is known %s', async (_how, listed, replicas, strangers) => {
    expect(await unlisted(listed, replicas, resolve)).toEqual(strangers);
  });

  test('is told by name and address', () => {
    expect(nameOf(one)).toBe('one@10.0.0.2');
    expect(nameOf({ name: '', address: null })).toBe('?@local');
  });
});
