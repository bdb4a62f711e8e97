import { expect, test } from 'vitest';
import { addressMatcher } from './cidr.ts';

test('addresses are matched by block, also when IPv4 comes in IPv6 clothes', () => {
  const matches = addressMatcher(['10.1.0.0/16', '::1']);
  expect(['10.1.2.3', '::ffff:10.1.2.3', '::1'].every(matches)).toBe(true);
  expect(['10.2.0.1', '::ffff:10.2.0.1', '', 'nonsense', '::2'].some(matches)).toBe(false);
});
