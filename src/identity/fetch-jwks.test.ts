import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { FRESH_MS } from './remote-keys.ts';
import { deferred, first, type KeyHarness, openKeys } from './testing/key-harness.ts';
import { makeKey } from './testing/keys.ts';

let keys: KeyHarness;

beforeEach(async () => {
  keys = await openKeys();
});

afterEach(() => keys.close());

describe('a JWKS server that misbehaves', () => {
  const good = JSON.stringify({ keys: [first.jwk] });

  it('and is not there at all: 503', async () => {
    const trust = keys.trusting();
    await keys.server.close();
    expect(await keys.ask(trust, first)).toBe('keys_unavailable');
    expect(keys.failures()[0]).toContain('ECONNREFUSED');
  });

  it('and redirects is not followed', async () => {
    keys.server.answer((request, response) => {
      if (request.url === '/jwks') response.writeHead(302, { location: '/elsewhere' }).end();
      else response.end(good);
    });
    expect(await keys.ask(keys.trusting(), first)).toBe('keys_unavailable');
    expect(keys.server.asked).toStrictEqual(['/jwks']);
    expect(keys.failures()).toStrictEqual(['answered 302']);
  });

  it.each([
    ['never answers', () => undefined],
    ['stops in the middle', (response: { write(text: string): void }) => response.write('{"keys":[')],
  ])('and %s is left after the time for the whole exchange', async (_name, begin) => {
    await keys.close();
    keys = await openKeys(50);
    keys.server.answer((_request, response) => begin(response));
    expect(await keys.ask(keys.trusting(), first)).toBe('keys_unavailable');
    expect(keys.failures()).toHaveLength(1);
    expect(keys.failures()[0]).toMatch(/timeout/i);
  });

  it('and answers 10 MB is cut off after 64 KiB', async () => {
    const gone = deferred<number>();
    keys.server.answer((_request, response) => {
      let sent = 0;
      const chunk = Buffer.alloc(16 * 1024, ' ');
      const more = (): void => {
        while (!response.destroyed && sent < 10 * 1024 * 1024) {
          sent += chunk.length;
          if (!response.write(chunk)) return void response.once('drain', more);
        }
        response.end(good);
      };
      response.once('close', () => gone.resolve(sent));
      more();
    });
    expect(await keys.ask(keys.trusting(), first)).toBe('keys_unavailable');
    expect(keys.failures()).toStrictEqual(['answered more than 65536 bytes']);
    expect(await gone.promise).toBeLessThan(10 * 1024 * 1024);
  });

  it('and says 64 KiB exactly is still heard', async () => {
    keys.server.answer((_request, response) => void response.end(good.padEnd(64 * 1024)));
    expect(await keys.ask(keys.trusting(), first)).toBe('accepted');
  });

  it.each([
    ['HTML', '<html>maintenance</html>', 'The body is not valid JSON'],
    ['nothing', '', 'The body is not valid JSON'],
    ['another document', '{"issuer":"x"}', 'not a JWKS with at most 32 keys'],
    [
      '33 keys',
      JSON.stringify({ keys: Array.from({ length: 33 }, (_, n) => ({ ...first.jwk, kid: String(n) })) }),
      'not a JWKS with at most 32 keys',
    ],
    ['keys twice', `{"keys":[],${good.slice(1)}`, 'The member "keys" appears twice.'],
    ['kid twice', good.replace('"kid":', '"kid":"other","kid":'), 'The member "kid" appears twice.'],
  ])('and answers with %s is not believed', async (_name, body, reason) => {
    keys.server.answer((_request, response) => void response.end(body));
    expect(await keys.ask(keys.trusting(), first)).toBe('keys_unavailable');
    expect(keys.failures()).toStrictEqual([reason]);
  });

  it('and answers with text that is not UTF-8 is not believed', async () => {
    keys.server.answer(
      (_request, response) => void response.end(Buffer.from(good.replace('"kid"', '"\xff":1,"kid"'), 'latin1')),
    );
    expect(await keys.ask(keys.trusting(), first)).toBe('keys_unavailable');
  });

  it('and goes bad keeps nobody out who was known', async () => {
    keys.server.serve(first);
    const trust = keys.trusting();
    await keys.ask(trust, first);
    keys.server.answer((_request, response) => void response.end('<html>maintenance</html>'));
    keys.time.ms = FRESH_MS;
    expect(await keys.ask(trust, first)).toBe('accepted');
    await vi.waitFor(() => expect(keys.failures()).toHaveLength(1));
    expect(await keys.ask(trust, first)).toBe('accepted');
  });

  it('and publishes keys of the wrong kind has them skipped, with a word, and the good one used', async () => {
    const wrong = makeKey('wrong', 'RS256');
    keys.server.answer(
      (_request, response) =>
        void response.end(JSON.stringify({ keys: [wrong.jwk, { kty: 'oct', k: 'AAAA', kid: 'shared' }, first.jwk] })),
    );
    const trust = keys.trusting();
    expect(await keys.ask(trust, first)).toBe('accepted');
    expect(await keys.ask(trust, { ...first, kid: 'wrong' })).toBe('workload_token_key_unknown');
    expect(keys.events.filter(({ event }) => event !== 'jwks_fetched')).toStrictEqual([
      { event: 'jwks_key_skipped', source: 'idp', kid: 'wrong', reason: 'fits no algorithm that is allowed for it' },
      { event: 'jwks_key_skipped', source: 'idp', kid: 'shared', reason: 'holds private members' },
      { event: 'jwks_loaded', source: 'idp', usable: 1 },
    ]);
  });
});

describe('where keys may come from', () => {
  it.each([
    ['plain http without dev trust', () => ({ url: keys.server.url }), false],
    ['plain http beyond loopback', () => ({ url: 'http://idp.example/jwks' }), true],
    ['a loopback name in another domain', () => ({ url: 'http://127.0.0.1.example/jwks' }), true],
    ['a user in the URL', () => ({ url: keys.server.url.replace('//', '//user:pass@') }), true],
    ['another scheme', () => ({ url: 'file:///etc/passwd' }), true],
    ['no URL', () => ({ url: 'jwks' }), true],
    ['a file that the catalog did not load', () => ({ file: 'keys.json' }), true],
    [
      'an inline set with too many keys',
      () => ({ inline: { keys: Array.from({ length: 33 }, () => first.jwk) } }),
      true,
    ],
  ])('not %s', async (_name, jwks, dev) => {
    await keys.close();
    const fetch = vi.spyOn(globalThis, 'fetch');
    keys = await openKeys();
    keys.server.serve(first);
    expect(await keys.ask(keys.trusting(jwks(), dev), first)).toBe('keys_unavailable');
    expect(fetch).not.toHaveBeenCalled();
    expect(keys.failures()).toHaveLength(1);
    expect(JSON.stringify(keys.events)).not.toContain('pass@');
  });
});
