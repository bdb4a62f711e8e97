import { expect, test, vi } from 'vitest';
import { parseModes, wantedModes } from './contract-modes.ts';

test('a suite runs in all of its modes, or in the one that is asked for', () => {
  vi.stubEnv('MAYFLY_TEST_MODE', undefined);
  expect(wantedModes(['createrole', 'pool'])).toEqual(['createrole', 'pool']);
  vi.stubEnv('MAYFLY_TEST_MODE', 'pool');
  expect(wantedModes(['createrole', 'pool'])).toEqual(['pool']);
  expect(wantedModes(['definer'])).toEqual([]);
});

test('a mode that nobody knows is refused, not taken as none', () => {
  expect(() => parseModes('definer,superuser')).toThrow(/superuser/);
});
