import { describe, expect, test } from 'vitest';
import { parseSpiffeId } from './spiffe-id.ts';

describe('a SPIFFE ID', () => {
  test.each([
    ['spiffe://prod.example', { trustDomain: 'prod.example', path: '' }],
    ['spiffe://prod.example/agent', { trustDomain: 'prod.example', path: '/agent' }],
    ['spiffe://a_b-c.1/A.b_c-9/...', { trustDomain: 'a_b-c.1', path: '/A.b_c-9/...' }],
    [`spiffe://${'a'.repeat(255)}/x`, { trustDomain: 'a'.repeat(255), path: '/x' }],
    [`spiffe://a/${'b'.repeat(2037)}`, { trustDomain: 'a', path: `/${'b'.repeat(2037)}` }],
  ])('%s', (text, id) => {
    expect(parseSpiffeId(text)).toEqual(id);
  });

  test.each([
    ['nothing', ''],
    ['another scheme', 'https://prod.example/agent'],
    ['the scheme in capitals', 'SPIFFE://prod.example/agent'],
    ['no trust domain', 'spiffe:///agent'],
    ['a trust domain in capitals', 'spiffe://Prod.example/agent'],
    ['a trust domain of 256 characters', `spiffe://${'a'.repeat(256)}/x`],
    ['2049 characters', `spiffe://a/${'b'.repeat(2038)}`],
    ['a port', 'spiffe://prod.example:443/agent'],
    ['a user', 'spiffe://user@prod.example/agent'],
    ['a query', 'spiffe://prod.example/agent?x=1'],
    ['an empty query', 'spiffe://prod.example/agent?'],
    ['a fragment', 'spiffe://prod.example/agent#x'],
    ['percent-encoding', 'spiffe://prod.example/%61gent'],
    ['percent-encoding in the trust domain', 'spiffe://prod%2eexample/agent'],
    ['an empty segment', 'spiffe://prod.example//agent'],
    ['a slash at the end', 'spiffe://prod.example/agent/'],
    ['the root path', 'spiffe://prod.example/'],
    ['a dot', 'spiffe://prod.example/./agent'],
    ['two dots', 'spiffe://prod.example/agent/../admin'],
    ['two dots at the end', 'spiffe://prod.example/agent/..'],
    ['a wildcard', 'spiffe://prod.example/agent/*'],
    ['a backslash', 'spiffe://prod.example\\agent'],
    ['a letter that is not ASCII', 'spiffe://prod.example/agént'],
    ['a line break at the end', 'spiffe://prod.example/agent\n'],
    ['white space before it', ' spiffe://prod.example/agent'],
  ])('is not one with %s', (_what, text) => {
    expect(parseSpiffeId(text)).toBeUndefined();
  });
});
