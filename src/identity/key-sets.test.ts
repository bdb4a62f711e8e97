import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { MayflyError } from '../domain/errors.ts';
import { createIdentity, type IdentityEvent } from './index.ts';
import { FRESH_MS, RETRY_AFTER_FAILURE_MS, UNKNOWN_KID_COOLDOWN_MS, USABLE_MS } from './remote-keys.ts';
import { deferred, first, type KeyHarness, openKeys, second } from './testing/key-harness.ts';
import { signToken } from './testing/keys.ts';
import { believe, refusal, workloadClaims } from './testing/trust.ts';

let keys: KeyHarness;

beforeEach(async () => {
  keys = await openKeys();
});

afterEach(() => keys.close());

describe('keys by URL', () => {
  it('are fetched once for any number of requests that come together', async () => {
    keys.server.serve(first);
    const trust = keys.trusting();
    const answers = await Promise.all(Array.from({ length: 100 }, () => keys.ask(trust, first)));
    expect(new Set(answers)).toStrictEqual(new Set(['accepted']));
    expect(keys.server.asked).toStrictEqual(['/jwks']);
  });

  it('are fetched once more for 500 unknown kids that come together, and not again for 30 seconds', async () => {
    keys.server.serve(first);
    const trust = keys.trusting();
    await keys.ask(trust, first);
    const strangers = Array.from({ length: 500 }, (_, n) => ({ ...second, kid: `stranger-${n}` }));
    const answers = await Promise.all(strangers.map((key) => keys.ask(trust, key)));
    expect(new Set(answers)).toStrictEqual(new Set(['workload_token_key_unknown']));
    expect(keys.server.asked).toHaveLength(2);

    keys.time.ms += UNKNOWN_KID_COOLDOWN_MS - 1;
    expect(await keys.ask(trust, { ...second, kid: 'later' })).toBe('workload_token_key_unknown');
    expect(keys.server.asked).toHaveLength(2);
    keys.time.ms += 1;
    expect(await keys.ask(trust, { ...second, kid: 'later' })).toBe('workload_token_key_unknown');
    expect(keys.server.asked).toHaveLength(3);
  });

  it('are not fetched twice for an unknown kid that comes first', async () => {
    keys.server.serve(first);
    const trust = keys.trusting();
    const answers = await Promise.all(Array.from({ length: 50 }, () => keys.ask(trust, second)));
    expect(new Set(answers)).toStrictEqual(new Set(['workload_token_key_unknown']));
    expect(keys.server.asked).toHaveLength(1);
  });

  it('may rotate: the new one holds at once, the old one no longer', async () => {
    keys.server.serve(first);
    const trust = keys.trusting();
    expect(await keys.ask(trust, first)).toBe('accepted');
    keys.server.serve(second);
    expect(await keys.ask(trust, second)).toBe('accepted');
    expect(await keys.ask(trust, first)).toBe('workload_token_key_unknown');
    expect(keys.server.asked).toHaveLength(2);
  });

  it('that changed make a token unknown that was believed a moment ago', async () => {
    keys.server.serve(first, second);
    const { context } = keys.trusting();
    const authorization = `Bearer ${signToken(first, workloadClaims())}`;
    const caller = await believe(keys.identity, authorization, context);
    expect(await believe(keys.identity, authorization, context)).toBe(caller);
    keys.server.serve(second);
    keys.time.ms += 1;
    expect(
      await refusal(believe(keys.identity, `Bearer ${signToken({ ...first, kid: 'x' }, workloadClaims())}`, context)),
    ).toBe('workload_token_key_unknown');
    expect(await refusal(believe(keys.identity, authorization, context))).toBe('workload_token_key_unknown');
  });

  it('are looked at again in the background after five minutes, without waiting', async () => {
    keys.server.serve(first);
    const trust = keys.trusting();
    await keys.ask(trust, first);
    keys.time.ms = FRESH_MS - 1;
    await keys.ask(trust, first);
    expect(keys.server.asked).toHaveLength(1);

    const answered = deferred<void>();
    keys.server.answer(
      (_request, response) => void answered.promise.then(() => response.end(JSON.stringify({ keys: [second.jwk] }))),
    );
    keys.time.ms = FRESH_MS;
    expect(await keys.ask(trust, first)).toBe('accepted');
    await vi.waitFor(() => expect(keys.server.asked).toHaveLength(2));
    answered.resolve();
    await vi.waitFor(async () => expect(await keys.ask(trust, first)).toBe('workload_token_key_unknown'));
    expect(await keys.ask(trust, second)).toBe('accepted');
  });

  it('that nobody has used for long are asked for before they are believed', async () => {
    keys.server.serve(first);
    const trust = keys.trusting();
    await keys.ask(trust, first);
    keys.server.serve(second);
    keys.time.ms = 2 * FRESH_MS;
    expect(await keys.ask(trust, first)).toBe('workload_token_key_unknown');
    expect(keys.server.asked).toHaveLength(2);

    keys.server.answer((request) => void request.socket.destroy());
    keys.time.ms += 2 * FRESH_MS;
    expect(await Promise.all([keys.ask(trust, second), keys.ask(trust, first)])).toStrictEqual([
      'accepted',
      'keys_unavailable',
    ]);
    expect(keys.server.asked).toHaveLength(3);
  });

  it('stay the same object, and with them every known token, when a fetch brings the same text', async () => {
    keys.server.serve(first);
    const trust = keys.trusting();
    const { context } = trust;
    const authorization = `Bearer ${signToken(first, workloadClaims())}`;
    const caller = await believe(keys.identity, authorization, context);
    await keys.ask(trust, second);
    expect(keys.server.asked).toHaveLength(2);
    expect(await believe(keys.identity, authorization, context)).toBe(caller);
    expect(keys.events.filter(({ event }) => event === 'jwks_loaded')).toHaveLength(1);
    expect(keys.events.filter(({ event }) => event === 'jwks_fetched')).toHaveLength(2);
  });

  it('are believed for an hour while their source is down, and then no longer', async () => {
    keys.server.serve(first);
    const trust = keys.trusting();
    await keys.ask(trust, first);
    keys.server.answer((_request, response) => void response.writeHead(500).end());
    keys.time.ms = USABLE_MS - 1;
    expect(await keys.ask(trust, first)).toBe('accepted');
    await vi.waitFor(() => expect(keys.failures()).toStrictEqual(['answered 500']));
    keys.time.ms = USABLE_MS;
    expect(await keys.ask(trust, first)).toBe('keys_unavailable');
    keys.server.serve(first);
    keys.time.ms += RETRY_AFTER_FAILURE_MS;
    expect(await keys.ask(trust, first)).toBe('accepted');
  });

  it('cannot be called unknown while their source is down', async () => {
    keys.server.serve(first);
    const trust = keys.trusting();
    await keys.ask(trust, first);
    keys.server.answer((request) => void request.socket.destroy());
    expect(await Promise.all([keys.ask(trust, second), keys.ask(trust, second)])).toStrictEqual([
      'keys_unavailable',
      'keys_unavailable',
    ]);
    expect(await keys.ask(trust, second)).toBe('keys_unavailable');
    expect(await keys.ask(trust, first)).toBe('accepted');
    expect(keys.server.asked).toHaveLength(2);
    keys.server.serve(second);
    keys.time.ms += RETRY_AFTER_FAILURE_MS;
    expect(await keys.ask(trust, second)).toBe('accepted');
  });

  it('are asked for again only two seconds after a first fetch that failed', async () => {
    const trust = keys.trusting();
    expect(await Promise.all([keys.ask(trust, first), keys.ask(trust, first)])).toStrictEqual([
      'keys_unavailable',
      'keys_unavailable',
    ]);
    keys.time.ms = RETRY_AFTER_FAILURE_MS - 1;
    expect(await keys.ask(trust, first)).toBe('keys_unavailable');
    expect(keys.server.asked).toHaveLength(1);
    keys.server.serve(first);
    keys.time.ms = RETRY_AFTER_FAILURE_MS;
    expect(await keys.ask(trust, first)).toBe('accepted');
  });

  it('that cannot be had are a 503 with Retry-After', async () => {
    const { context } = keys.trusting();
    const error: unknown = await believe(keys.identity, `Bearer ${signToken(first, workloadClaims())}`, context).catch(
      (reason: unknown) => reason,
    );
    expect(error).toBeInstanceOf(MayflyError);
    expect(error).toMatchObject({ code: 'keys_unavailable', status: 503, retryAfterSeconds: 2 });
  });

  it('that are revoked altogether leave nobody: an empty set is an answer', async () => {
    keys.server.serve();
    expect(await keys.ask(keys.trusting(), first)).toBe('workload_token_key_unknown');
  });
});

describe('warming up', () => {
  it('fetches all keys, says which are there, and never fails for one that is not', async () => {
    keys.server.serve(first);
    const { trust } = keys.trusting();
    const [issuer] = trust.taskIssuers;
    if (!issuer) throw new Error('no issuer');
    const down = { ...issuer, jwks: { url: 'http://127.0.0.1:1/jwks' }, dev: true };
    expect(await keys.identity.warmUp({ ...trust, taskIssuers: [down] })).toStrictEqual([
      { source: 'orchestrator', ready: false },
      { source: 'idp', ready: true },
      { source: 'people', ready: true },
    ]);
    expect(keys.server.asked).toHaveLength(1);
  });

  it('keeps what a new catalog leaves unchanged, and forgets the rest', async () => {
    keys.server.serve(first);
    const old = keys.trusting();
    await keys.identity.warmUp(old.trust);
    const same = { ...old.trust, workloadSources: old.trust.workloadSources.map((source) => ({ ...source })) };
    await keys.identity.warmUp(same);
    expect(keys.server.asked).toHaveLength(1);
    await keys.identity.warmUp({ ...same, workloadSources: [] });
    await keys.identity.warmUp(same);
    expect(keys.server.asked).toHaveLength(2);
  });

  it('says of which sources nobody can be believed, since the listener asks for no certificates', async () => {
    const { trust } = keys.trusting();
    const mesh = {
      kind: 'spiffe-x509',
      name: 'mesh',
      issuer: 'spiffe://prod.example',
      trustDomain: 'prod.example',
    } as const;
    const trusted = {
      ...trust,
      workloadSources: [
        ...trust.workloadSources,
        { ...mesh, dev: false, jwks: { inline: { keys: [] } }, algorithms: [] },
      ],
    };
    for (const [certificates, told] of [
      [false, ['mesh']],
      [true, []],
    ] as const) {
      const events: IdentityEvent[] = [];
      await createIdentity({ certificates, log: (event) => events.push(event) }).warmUp(trusted);
      const missing = events.filter(({ event }) => event === 'certificates_not_asked');
      expect(missing.map(({ source }) => source)).toStrictEqual(told);
    }
  });

  it('ends with the broker', async () => {
    keys.server.answer(() => undefined);
    const { trust } = keys.trusting();
    const warm = keys.identity.warmUp(trust);
    await vi.waitFor(() => expect(keys.server.asked).toHaveLength(1));
    keys.identity.close();
    expect((await warm).find(({ source }) => source === 'idp')?.ready).toBe(false);
    expect(keys.failures()).toStrictEqual(['the broker is closing']);
  });
});
