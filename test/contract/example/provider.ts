import { randomUUID } from 'node:crypto';
import { Redis } from 'ioredis';
import { z } from 'zod';
import * as contract from '../../../src/provider.ts';
import { ProviderError, Secret, type Outcome, type Ref, type Verdict } from '../../../src/provider.ts';

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
type Entitlement = z.infer<typeof entitlementSchema>;

/** How long a tombstone stays: longer than any retry of an end. Seconds. */
const TOMBSTONE_SECONDS = 30 * 86_400;

class RedisAclSession implements contract.Session<Entitlement> {
  readonly #target: Target;
  readonly #context: contract.ConnectContext;

  constructor(target: Target, context: contract.ConnectContext) {
    this.#target = target;
    this.#context = context;
  }

  async guarantee(): Promise<contract.Guarantee> {
    const says = 'An early end deletes the user and closes its connections at once; Redis itself keeps no deadline.';
    const able = { ends_sessions: true, enumerable: true, min_ttl_seconds: 1, max_ttl_seconds: 86_400 };
    return { ...able, revocation: 'immediate', native_expiry: false, says };
  }

  /** The name is the mark: whose it is, and of which grant. */
  reserve(grantId: string): string {
    return `mayfly:${this.#context.installation}:${grantId}`;
  }

  async mint(ref: Ref, request: contract.MintRequest<Entitlement>, signal: AbortSignal): Promise<contract.Minted> {
    const keys = bind(request.config.keys, request.params);
    const password = randomUUID();
    return await this.#call(signal, async (redis) => {
      await redis.set('mayfly:system', randomUUID(), 'NX');
      const system = await redis.get('mayfly:system');
      // A mark that is gone at mint_by by the clock of Redis, and that a fence overwrites: either way EXEC does nothing.
      const mark = markOf(ref.handle);
      await redis.set(mark, 'minting', 'PXAT', request.mintBy.getTime(), 'NX');
      await redis.watch(mark);
      if ((await redis.get(mark)) !== 'minting')
        throw new ProviderError('gone', 'It was fenced, is made, or is too late.');
      const rules = ['reset', 'on', `>${password}`, ...keys.map((key) => `~${key}`), ...request.config.commands];
      const made = redis
        .multi()
        .call('ACL', 'SETUSER', ref.handle, ...rules, '-@admin', '-@dangerous')
        .set(mark, 'made');
      if (!(await executed(made.call('ACL', 'SAVE'))))
        throw new ProviderError('gone', 'It was fenced, or is too late.');
      const { host, port } = this.#target;
      const secret = new Secret({ host, port, username: ref.handle, password });
      return { secret, expiresAt: request.deadline, facts: { system } };
    });
  }

  fence(refs: readonly Ref[], signal: AbortSignal): Promise<readonly Outcome[]> {
    return this.#each(refs, signal, async (redis, { handle }) => {
      // DELUSER closes its connections; SAVE makes it last. The tombstone stops a mint that is still on its way.
      const cut = redis.multi().set(markOf(handle), 'fenced', 'EX', TOMBSTONE_SECONDS).call('ACL', 'DELUSER', handle);
      await executed(cut.call('ACL', 'SAVE'));
      return { ok: true, evidence: { user: 'deleted' } };
    });
  }

  verify(refs: readonly Ref[], signal: AbortSignal): Promise<readonly Verdict[]> {
    return this.#each(refs, signal, async (redis, { handle }) => {
      const user = await redis.call('ACL', 'GETUSER', handle);
      const clients = String(await redis.call('CLIENT', 'LIST')).split('\n');
      const sessions = clients.filter((line) => line.split(' ').includes(`user=${handle}`)).length;
      // Absent is not enough: without its tombstone a late mint could still make it.
      const tombstone = (await redis.get(markOf(handle))) === 'fenced';
      const contained = user === null && sessions === 0 && tombstone;
      const evidence = { user: user === null ? 'absent' : 'present', sessions, tombstone };
      return { ok: true, contained, clean: contained, open: user !== null || sessions > 0, evidence };
    });
  }

  /** Nothing is left but the tombstone, which goes by itself. */
  reap(refs: readonly Ref[], signal: AbortSignal): Promise<readonly Outcome[]> {
    return this.#each(refs, signal, async () => ({ ok: true, evidence: {} }));
  }

  async list(signal: AbortSignal): Promise<readonly contract.Found[]> {
    const { installation } = this.#context;
    return await this.#call(signal, async (redis) => {
      const [users, system] = [await redis.call('ACL', 'USERS'), await redis.get('mayfly:system')];
      const ours = (Array.isArray(users) ? users : []).map(String).filter((user) => user.startsWith(this.reserve('')));
      const grantId = (handle: string): string => handle.slice(this.reserve('').length);
      return ours.map((handle) => ({ handle, grantId: grantId(handle), installation, facts: { system } }));
    });
  }

  /** A canary: minted, used, refused what is not its own, ended, refused. */
  async check(
    tested: { name: string; config: Entitlement } | null,
    signal: AbortSignal,
  ): Promise<readonly contract.CheckStep[]> {
    const [seconds = 0] = await this.#call(signal, (redis) => redis.time());
    const skew = Math.abs(Date.now() / 1000 - Number(seconds));
    const clock = { step: 'clock', ok: skew < 5, says: `The clock of Redis differs by ${skew.toFixed(0)} s.` };
    if (tested === null) return [clock];
    const deadline = new Date(Date.now() + 60_000);
    const grantId = randomUUID();
    const ref: Ref = { grantId, handle: this.reserve(grantId), facts: null, deadline };
    const names = tested.config.keys.flatMap((key) => [...key.matchAll(/\{(\w+)\}/g)].map(([, name = '']) => name));
    const params = Object.fromEntries(names.map((name) => [name, 'canary']));
    const times = { deadline, notAfter: deadline, mintBy: deadline };
    const steps = [clock];
    try {
      const request = { grantId, entitlement: tested.name, config: tested.config, params, ...times };
      const { password } = (await this.mint(ref, request, signal)).secret.reveal();
      const as = { user: ref.handle, password: String(password) };
      const came = async (): Promise<string> =>
        await this.#call(signal, (redis) => redis.get('mayfly:system'), as).then(
          () => 'let in',
          (error: unknown) => (error instanceof ProviderError ? error.message : 'failed'),
        );
      const inside = await came();
      steps.push({ step: 'use', ok: inside.includes('NOPERM'), says: `A key that is not its own: ${inside}` });
      const [cut] = await this.fence([ref], signal);
      const after = await came();
      steps.push({ step: 'end', ok: cut?.ok === true && after.includes('WRONGPASS'), says: `After its end: ${after}` });
    } finally {
      await this.fence([ref], signal);
    }
    return steps;
  }

  async close(): Promise<void> {}

  /** One answer for each ref; one that fails fails alone. */
  async #each<T extends Outcome | Verdict>(
    refs: readonly Ref[],
    signal: AbortSignal,
    work: (redis: Redis, ref: Ref) => Promise<T>,
  ): Promise<readonly (T | { ok: false; handle: string; error: ProviderError })[]> {
    return await this.#call(signal, async (redis) => {
      const system = await redis.get('mayfly:system');
      const answers: (T | { ok: false; handle: string; error: ProviderError })[] = [];
      for (const ref of refs) {
        const { handle, facts, grantId } = ref;
        try {
          if (handle !== this.reserve(grantId))
            throw new ProviderError('misconfigured', 'That handle is not of our making.');
          if (facts !== null && facts['system'] !== system)
            throw new ProviderError('misconfigured', 'Another Redis is there.');
          answers.push({ ...(await work(redis, ref)), handle });
        } catch (error) {
          answers.push({ ok: false, handle, error: classify(error) });
        }
      }
      return answers;
    });
  }

  /** A connection for one call, which ends with it or with its signal. */
  async #call<T>(
    signal: AbortSignal,
    work: (redis: Redis) => Promise<T>,
    as?: { user: string; password: string },
  ): Promise<T> {
    const { host, port, user, password } = this.#target;
    const login = as ?? { user, password: this.#context.secret(password).reveal() };
    const options = { lazyConnect: true, enableReadyCheck: false, maxRetriesPerRequest: 0, retryStrategy: () => null };
    const redis = new Redis({ host, port, username: login.user, password: login.password, ...options });
    let failed: unknown;
    redis.on('error', (error) => (failed ??= error));
    const stop = (): void => redis.disconnect();
    signal.addEventListener('abort', stop, { once: true });
    try {
      if (signal.aborted) throw new ProviderError('retryable', 'There was no time left.');
      await redis.connect();
      return await work(redis);
    } catch (error) {
      throw classify(error, failed);
    } finally {
      signal.removeEventListener('abort', stop);
      redis.disconnect();
    }
  }
}

function markOf(handle: string): string {
  return `mayfly:mark:${handle}`;
}

/** Params stand where the patterns name them, and are no patterns themselves. */
function bind(keys: readonly string[], params: contract.MintRequest['params']): readonly string[] {
  const unbound = Object.keys(params).filter((name) => !keys.every((key) => key.includes(`{${name}}`)));
  if (unbound.length > 0) throw new ProviderError('misconfigured', `Not every key is bound by ${unbound.join()}.`);
  return keys.map((key) =>
    key.replaceAll(/\{(\w+)\}/g, (_all, name: string) => {
      const value = String(params[name] ?? '');
      if (!/^[\w-]+$/.test(value))
        throw new ProviderError('misconfigured', `The param ${name} is missing, or no plain word.`);
      return value;
    }),
  );
}

/** Whether the transaction took place. One command of it that failed is a failure. */
async function executed(transaction: {
  exec(): Promise<[error: Error | null, result: unknown][] | null>;
}): Promise<boolean> {
  const results = await transaction.exec();
  const failed = results?.find(([error]) => error !== null);
  if (failed !== undefined) throw classify(failed[0]);
  return results !== null;
}

/** Only the code goes on: a driver's error holds the command with its arguments, and so the password. */
function classify(...errors: readonly unknown[]): ProviderError {
  const all = errors.flatMap((error) => [error, ...(Object(error).previousErrors ?? [])]);
  const ours = all.find((error) => error instanceof ProviderError);
  if (ours instanceof ProviderError) return ours;
  const codes = all.flatMap((error) => (error instanceof Error ? (/^[A-Z]{3,}(?= )/.exec(error.message) ?? []) : []));
  const refused = codes.find((code) => ['NOPERM', 'WRONGPASS', 'NOAUTH'].includes(code));
  if (refused !== undefined) return new ProviderError('denied', `Redis refuses that (${refused}).`);
  if (codes.includes('ERR')) return new ProviderError('misconfigured', 'Redis does not do that: is there an ACL file?');
  return new ProviderError('retryable', 'Redis did not answer in time.');
}

export const provider: contract.Provider<Target, Entitlement> = {
  type: 'redis-acl',
  bindsParams: true,
  targetSchema,
  entitlementSchema,
  connect: (target, context) => new RedisAclSession(target, context),
};
