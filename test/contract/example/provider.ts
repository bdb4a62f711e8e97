import { randomUUID } from 'node:crypto';
import type { Redis } from 'ioredis';
import { z } from 'zod';
import {
  type CheckStep,
  type ConnectContext,
  type Found,
  type Guarantee,
  type Minted,
  type MintRequest,
  type Outcome,
  type Provider,
  ProviderError,
  type Ref,
  Secret,
  type Session,
  type Verdict,
} from '../../../src/provider.ts';
import { canary } from './canary.ts';
import { classify, saved, withRedis } from './redis.ts';

const targetSchema = z.strictObject({
  host: z.string(),
  port: z.int().min(1).max(65_535),
  user: z.string(),
  password: z.string().regex(/^(env|file):/, 'must be env:NAME or file:path'),
});
const entitlementSchema = z.strictObject({
  /** Patterns of keys; `{tenant}` stands for a param: `invoices:{tenant}:*`. */
  keys: z.array(z.string().regex(/^[^\s~%]+$/)).min(1),
  commands: z.array(z.string().regex(/^\+@?[a-z|-]+$/)).min(1),
});
type Target = z.infer<typeof targetSchema>;
export type Entitlement = z.infer<typeof entitlementSchema>;
type Failed = { readonly ok: false; readonly handle: string; readonly error: ProviderError };

/** How long a tombstone stays: longer than any retry of an end. Seconds. */
const TOMBSTONE_SECONDS = 30 * 86_400;
const markOf = (handle: string): string => `mayfly:mark:${handle}`;

/** One user of Redis for each grant. The name is the mark: it says whose it is, and of which grant. */
function connect(target: Target, context: ConnectContext): Session<Entitlement> {
  const { host, port } = target;
  const { installation } = context;
  const reserve = (grantId: string): string => `mayfly:${installation}:${grantId}`;
  const onRedis = async <T>(signal: AbortSignal, work: (redis: Redis) => Promise<T>): Promise<T> =>
    await withRedis(
      { host, port, username: target.user, password: context.secret(target.password).reveal() },
      signal,
      work,
    );

  /** One answer for each ref, of this very Redis; one that fails fails alone. */
  const each = async <T extends Outcome | Verdict>(
    refs: readonly Ref[],
    signal: AbortSignal,
    work: (redis: Redis, handle: string) => Promise<T>,
  ): Promise<readonly (T | Failed)[]> =>
    await onRedis(signal, async (redis) => {
      const system = await redis.get('mayfly:system');
      const one = async ({ handle, facts, grantId }: Ref): Promise<T | Failed> => {
        try {
          if (handle !== reserve(grantId)) throw new ProviderError('misconfigured', 'That user is not of our making.');
          if (facts !== null && facts['system'] !== system)
            throw new ProviderError('misconfigured', 'Another Redis is there.');
          return { ...(await work(redis, handle)), handle };
        } catch (error) {
          return { ok: false, handle, error: classify(error) };
        }
      };
      return await Promise.all(refs.map(one));
    });

  const session: Session<Entitlement> = {
    reserve,

    async guarantee(): Promise<Guarantee> {
      const says = 'An early end deletes the user and closes its connections at once; Redis itself keeps no deadline.';
      const able = { ends_sessions: true, enumerable: true, min_ttl_seconds: 1, max_ttl_seconds: 86_400 };
      return { ...able, revocation: 'immediate', native_expiry: false, says };
    },

    async mint({ handle }: Ref, request: MintRequest<Entitlement>, signal: AbortSignal): Promise<Minted> {
      const keys = bind(request.config.keys, request.params);
      const password = randomUUID();
      return await onRedis(signal, async (redis) => {
        await redis.set('mayfly:system', randomUUID(), 'NX');
        const facts = { system: await redis.get('mayfly:system') };
        // The mark is gone at mint_by by the clock of Redis, and a fence overwrites it: in both cases EXEC does nothing.
        await redis.set(markOf(handle), 'minting', 'PXAT', request.mintBy.getTime(), 'NX');
        await redis.watch(markOf(handle));
        const mark = await redis.get(markOf(handle));
        const rules = ['reset', 'on', `>${password}`, ...keys.map((key) => `~${key}`), ...request.config.commands];
        const user = redis.multi().call('ACL', 'SETUSER', handle, ...rules, '-@admin', '-@dangerous');
        if (mark !== 'minting' || !(await saved(user.set(markOf(handle), 'minted'))))
          throw new ProviderError('gone', 'It is fenced, or minted, or it is too late.');
        return { secret: new Secret({ host, port, username: handle, password }), expiresAt: request.deadline, facts };
      });
    },

    fence: (refs: readonly Ref[], signal: AbortSignal): Promise<readonly Outcome[]> =>
      each(refs, signal, async (redis, handle) => {
        // DELUSER closes its connections. The tombstone stops a mint that is still on its way.
        const tombstone = redis.multi().set(markOf(handle), 'fenced', 'EX', TOMBSTONE_SECONDS);
        const ended = await saved(tombstone.call('ACL', 'DELUSER', handle));
        if (!ended) throw new ProviderError('retryable', 'Redis did not do it.');
        return { ok: true, evidence: { user: 'deleted' } };
      }),

    verify: (refs: readonly Ref[], signal: AbortSignal): Promise<readonly Verdict[]> =>
      each(refs, signal, async (redis, handle) => {
        const user = await redis.call('ACL', 'GETUSER', handle);
        const clients = String(await redis.call('CLIENT', 'LIST')).split('\n');
        const sessions = clients.filter((line) => line.split(' ').includes(`user=${handle}`)).length;
        // Absence is no proof: without its tombstone a late mint could still make it.
        const tombstone = (await redis.get(markOf(handle))) === 'fenced';
        const contained = user === null && sessions === 0 && tombstone;
        const evidence = { user: user === null ? 'absent' : 'present', sessions, tombstone };
        return { ok: true, contained, clean: contained, open: user !== null || sessions > 0, evidence };
      }),

    /** Nothing is left but the tombstone, which goes by itself. */
    reap: (refs: readonly Ref[], signal: AbortSignal): Promise<readonly Outcome[]> =>
      each(refs, signal, async () => ({ ok: true, evidence: {} })),

    list: (signal: AbortSignal): Promise<readonly Found[]> =>
      onRedis(signal, async (redis) => {
        const [said, system] = [await redis.call('ACL', 'USERS'), await redis.get('mayfly:system')];
        const users = Array.isArray(said) ? said.map(String) : [];
        // We are one of them: a list without us is no list of its users.
        if (!users.includes(target.user)) throw new ProviderError('retryable', 'Redis did not list its users.');
        const ours = users.filter((user) => user.startsWith(reserve('')));
        const grantOf = (handle: string): string => handle.slice(reserve('').length);
        return ours.map((handle) => ({ handle, grantId: grantOf(handle), installation, facts: { system } }));
      }),

    async check(tested, signal): Promise<readonly CheckStep[]> {
      const [seconds = 0] = await onRedis(signal, (redis) => redis.time());
      const skew = Math.abs(Date.now() / 1000 - seconds);
      const clock = { step: 'clock', ok: skew < 5, says: `The clock of Redis differs by ${skew.toFixed(0)} s.` };
      return tested === null ? [clock] : [clock, ...(await canary(session, tested, signal))];
    },

    close: async () => {},
  };
  return session;
}

/** Params stand where the patterns name them, and are no patterns themselves. */
function bind(keys: readonly string[], params: MintRequest['params']): readonly string[] {
  const loose = Object.keys(params).filter((name) => !keys.every((key) => key.includes(`{${name}}`)));
  if (loose.length > 0) throw new ProviderError('misconfigured', `Not every key is bound by ${loose.join()}.`);
  const fill = (_all: string, name: string): string => {
    const value = String(params[name] ?? '');
    if (!/^[\w-]+$/.test(value)) throw new ProviderError('misconfigured', `The param ${name} must be a plain word.`);
    return value;
  };
  return keys.map((key) => key.replaceAll(/\{(\w+)\}/g, fill));
}

export const provider: Provider<Target, Entitlement> = {
  type: 'redis-acl',
  bindsParams: true,
  targetSchema,
  entitlementSchema,
  connect,
};
