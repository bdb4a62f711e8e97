import type { PlantedBug } from './list.ts';

const file = 'test/contract/example/provider.ts';
const redis = 'test/contract/example/redis.ts';
const suites = ['test/contract/provider-example.test.ts'];

interface Bug {
  readonly name: string;
  readonly from: string;
  readonly to: string;
  readonly cases: string;
  readonly file?: string;
  /** Further edits of the provider, as [from, to]. */
  readonly more?: readonly (readonly [string, string])[];
}

/** What an author of a provider gets wrong, in the example of docs/writing-a-provider.md. */
const bugs: readonly Bug[] = [
  {
    name: 'a fence that does nothing',
    from: "await saved(tombstone.call('ACL', 'DELUSER', handle));",
    to: 'tombstone.discard();',
    cases: 'fence: access is cut, by effect',
  },
  {
    name: 'a fence that leaves sessions open',
    from: "tombstone.call('ACL', 'DELUSER', handle)",
    to: "tombstone.call('ACL', 'SETUSER', handle, 'off')",
    cases: 'fence: sessions that are open end with it',
  },
  {
    name: 'a fence without a tombstone',
    from: ".set(markOf(handle), 'fenced', 'EX', TOMBSTONE_SECONDS)",
    to: '.del(markOf(handle))',
    cases: 'race: a mint after its fence',
  },
  {
    name: 'a fence that a restart undoes',
    from: "await saved(tombstone.call('ACL', 'DELUSER', handle));",
    to: "await tombstone.call('ACL', 'DELUSER', handle).exec();",
    cases: 'restart: of system and broker: what was ended stays ended',
  },
  {
    name: 'denied is success',
    from: "await saved(tombstone.call('ACL', 'DELUSER', handle));",
    to: "await saved(tombstone.call('ACL', 'DELUSER', handle)).catch(() => true);",
    cases: 'rights: lost midway, each call is denied',
  },
  {
    name: 'one bad ref fails the batch',
    from: 'return { ok: false, handle, error: classify(error) };',
    to: 'throw classify(error);',
    cases: 'fence: one bad ref fails alone',
  },
  {
    name: 'answers in another order',
    from: 'return await Promise.all(refs.map(one));',
    to: 'return (await Promise.all(refs.map(one))).reverse();',
    cases: 'fence: a batch is answered whole and in order',
  },
  {
    name: 'whatever is named is ended',
    from: 'if (handle !== reserve(grantId))',
    to: 'if (handle === grantId)',
    cases: 'foreign: what is not ours stays as it was',
  },
  {
    name: 'what is not ours is listed',
    from: "user.startsWith(reserve(''))",
    to: "user.startsWith('mayfly:')",
    cases: 'foreign: what is not ours stays as it was',
  },
  {
    name: 'verify believes its fence',
    from: 'const contained = user === null && sessions === 0 && tombstone;',
    to: 'const contained = tombstone || user !== null;',
    cases: 'verify: open before its end',
  },
  {
    name: 'absence is proof',
    from: 'const contained = user === null && sessions === 0 && tombstone;',
    to: 'const contained = user === null;',
    cases: 'verify: never minted counts as gone only after its fence',
  },
  {
    name: 'verify does not know its system',
    from: "facts !== null && facts['system'] !== system",
    to: "facts !== null && facts['system'] === undefined",
    cases: 'verify: another system behind the address',
  },
  {
    name: 'no watch on the mark',
    from: 'await redis.watch(markOf(handle));',
    to: '',
    cases: 'race: a mint held up on its way past its fence',
  },
  {
    name: 'a mint that has all the time there is',
    from: "'PXAT', request.mintBy.getTime()",
    to: "'EX', 60",
    cases: 'mint: later than its mint_by',
  },
  {
    name: 'more rights than it says',
    from: '...request.config.commands];',
    to: "...request.config.commands, '+set'];",
    cases: 'mint: it does exactly what its entitlement allows',
  },
  {
    name: 'a param that binds nothing',
    from: "const value = String(params[name] ?? '');",
    to: "const value = String(params[name] ?? '') && '*'; if (value === '*') return value;",
    cases: 'mint: params bind each credential',
  },
  {
    name: 'a guarantee that Redis does not keep',
    from: 'native_expiry: false',
    to: 'native_expiry: true',
    cases: 'guarantee: native expiry',
  },
  {
    name: 'unknown keys are let through',
    from: 'const targetSchema = z.strictObject({',
    to: 'const targetSchema = z.object({',
    cases: 'schema: unknown keys',
  },
  {
    name: 'a tombstone in the memory of one session',
    from: ".set(markOf(handle), 'fenced', 'EX', TOMBSTONE_SECONDS);",
    to: '.del(markOf(handle)); fenced.add(handle);',
    more: [
      ['const { installation } = context;', 'const { installation } = context; const fenced = new Set<string>();'],
      ["(await redis.get(markOf(handle))) === 'fenced'", 'fenced.has(handle)'],
      ["if (mark !== 'minting' ||", "if (fenced.has(handle) || mark !== 'minting' ||"],
    ],
    cases: 'race: a mint after its fence',
  },
  {
    name: 'no watch on the mark where there are params',
    from: 'await redis.watch(markOf(handle));',
    to: 'if (Object.keys(request.params).length === 0) await redis.watch(markOf(handle));',
    cases: 'race: a mint held up on its way past its fence',
  },
  {
    name: 'a lock that only its owner opens again',
    from: "        await redis.set('mayfly:system', randomUUID(), 'NX');",
    to: "        await redis.set(`mayfly:busy:${handle}`, '1'); await redis.set('mayfly:system', randomUUID(), 'NX');",
    more: [
      [
        'expiresAt: request.deadline, facts };\n      });',
        'expiresAt: request.deadline, facts };\n      }).finally(() => onRedis(AbortSignal.timeout(3_000), (redis) => redis.del(`mayfly:busy:${handle}`)).catch(() => 0));',
      ],
      [
        '        // DELUSER closes its connections.',
        "        if ((await redis.exists(`mayfly:busy:${handle}`)) === 1) throw new ProviderError('retryable', 'It is busy.');\n        // DELUSER closes its connections.",
      ],
    ],
    cases: 'crash: killed at each step of a mint, its end without facts',
  },
  {
    name: 'what refuses connections is a matter for a person',
    file: redis,
    from: "return new ProviderError('retryable', 'Redis did not answer in time.');",
    to: "return new ProviderError('misconfigured', 'Redis did not answer in time.');",
    cases: 'faults: a target that refuses',
  },
  {
    name: 'no result is taken for a success',
    from: 'if (!ended)',
    to: 'if (ended === undefined)',
    cases: 'faults: well-formed answers that are wrong',
  },
  {
    name: 'facts are believed, whoever they are of',
    from: "const facts = { system: await redis.get('mayfly:system') };",
    to: "const facts = { system: await redis.get('mayfly:system'), user: handle };",
    more: [
      [
        'return { ...(await work(redis, handle)), handle };',
        "return { ...(await work(redis, String(facts?.['user'] ?? handle))), handle };",
      ],
    ],
    cases: 'verify: with the facts of another grant',
  },
  {
    name: 'a signal that nobody listens to',
    file: redis,
    from: "signal.addEventListener('abort', stop, { once: true });",
    to: '',
    cases: 'faults: a target that hangs',
  },
  {
    name: 'an error with the secret in it',
    file: redis,
    from: 'throw classify(error, failed);',
    to: "throw new ProviderError('retryable', `redis://${login.username}:${login.password}@${login.host}: it failed`);",
    cases: 'secrets: in no log line, error',
  },
  {
    name: 'a secret among the facts',
    from: "const facts = { system: await redis.get('mayfly:system') };",
    to: "const facts = { system: await redis.get('mayfly:system'), password };",
    cases: 'secrets: in no log line, error',
  },
  {
    name: 'an error of the driver as it came',
    file: redis,
    from: 'throw classify(error, failed);',
    to: 'throw error;',
    cases: 'faults: a target that refuses',
  },
];

export const exampleBugs: readonly PlantedBug[] = bugs.map(({ name, cases, from, to, file: other, more = [] }) => ({
  name,
  edits: [{ file: other ?? file, from, to }, ...more.map(([was, is]) => ({ file, from: was, to: is }))],
  suites,
  cases,
}));
