import pg from 'pg';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { ProblemError } from '../../src/client/index.ts';
import { applyCatalog } from '../../src/broker/apply-catalog.ts';
import { loadCatalog } from '../../src/catalog/load.ts';
import { loadProviders } from '../../src/catalog/provider-registry.ts';
import type { GrantBody } from '../../src/client/index.ts';
import { Database } from '../../src/store/database.ts';
import { birthLockKeys } from '../../src/store/locks.ts';
import { ask } from '../support/ask.ts';
import { type House, startHouse } from '../support/house.ts';

const READ = 'ledger-db/read-invoices';
const POLICIES = 'policies/test.cedar';

let house: House;
let providers: Awaited<ReturnType<typeof loadProviders>>;
beforeAll(async () => {
  providers = await loadProviders(['postgres']);
  house = await startHouse();
});
afterAll(async () => {
  await house?.stop();
});

const open = async (options?: Parameters<House['sign']>[0]) =>
  (await house.client().openTask(await house.sign(options))).task;

const bare = (id: string) => id.slice(id.indexOf('_') + 1);

/** Applies as another replica does whose word does not get through: ours still has the revision before in hand. */
async function applyUnheard(files: Readonly<Record<string, string>>): Promise<void> {
  const db = new Database({ url: house.store.runtimeUrl, connections: 1, onError: () => {} });
  try {
    const catalog = loadCatalog(files, { providers, allowDev: true });
    // Told only: what lives must not end by the sweep before the test has asked about it.
    const applied = await applyCatalog({ db, published: async () => {} }, catalog, 'another', 'test', {
      enforce: 'report',
    });
    expect(applied).not.toBeNull();
  } finally {
    await db.close();
  }
}

/** A connection of the test's own, ended after it; as a superuser where the store's owner may not. */
async function connected<T>(connectionString: string, body: (client: pg.Client) => Promise<T>): Promise<T> {
  const client = new pg.Client({ connectionString });
  await client.connect();
  try {
    return await body(client);
  } finally {
    await client.end();
  }
}

async function untilState(grant: GrantBody, state: string, timeout = 30_000): Promise<void> {
  await vi.waitFor(
    async () => {
      const rows = await house.onStore('SELECT state FROM mayfly.revocations WHERE grant_id = $1', [bare(grant.id)]);
      expect(rows).toEqual([{ state }]);
    },
    { timeout, interval: 50 },
  );
}

async function roleOf(grant: GrantBody) {
  const [role] = await house.onTarget<{ can_login: boolean; has_password: boolean; until: Date }>(
    `SELECT rolcanlogin AS can_login, rolpassword IS NOT NULL AS has_password, rolvaliduntil AS until
     FROM pg_authid WHERE rolname = $1`,
    [`mfy_${bare(grant.id).replaceAll('-', '')}`],
  );
  return role;
}

/** When the grant ends: in the store, and at the target. Milliseconds. */
async function endsOf(grant: GrantBody): Promise<{ store: number; target: number }> {
  const [row] = await house.onStore<{ deadline: Date }>('SELECT deadline FROM mayfly.grants WHERE id = $1', [
    bare(grant.id),
  ]);
  return { store: row?.deadline.getTime() ?? 0, target: (await roleOf(grant))?.until.getTime() ?? 0 };
}

describe('trust that was removed is believed by no replica, not even one that did not hear of it', () => {
  const trust = () => house.files['trust.yaml'] ?? '';

  test('a request of an issuer that is gone opens nothing', async () => {
    const request = await house.sign({ externalId: 'after-the-apply' });
    const none = trust().replace(/task_issuers:[\s\S]*?workload_sources:/, 'task_issuers: []\nworkload_sources:');
    await applyUnheard({ ...house.files, 'trust.yaml': none });
    try {
      await expect(house.client().openTask(request)).rejects.toMatchObject({ code: 'request_issuer_unknown' });
      expect(await house.onStore(`SELECT 1 FROM mayfly.tasks WHERE external_id = 'after-the-apply'`)).toEqual([]);
    } finally {
      await house.broker.apply(house.files);
    }
    await open({ externalId: 'believed-again' });
  });

  test('an operator whose role is gone gives nothing up: no revocation, and no target', async () => {
    const asked = { subject: 'olga', roles: ['operator' as const], audience: house.url, ttl_seconds: 900 };
    const { token } = await house.issuer.signOperatorToken(asked);
    const post = async (path: string) => {
      const body = path.endsWith('resume') ? {} : { reason: 'by who was one' };
      const reply = await ask(house.url, 'POST', path, { token, body });
      return [reply.status, reply.body['code']];
    };
    const { grant } = await house.client().issue((await open()).id, { entitlement: READ });
    const writeOff = `/v1/revocations/${grant.revocation.id}/write-off`;
    const [pause, resume] = ['/v1/targets/ledger-db/pause', '/v1/targets/ledger-db/resume'];
    expect(await post(pause)).toEqual([200, undefined]);
    await house.client().release(grant.id);
    const without = {
      ...house.files,
      'trust.yaml': trust().replace(/roles: \{[^}]*\}/, 'roles: { nobody: [viewer] }'),
    };
    try {
      await applyUnheard(without);
      expect(await post(writeOff)).toEqual([403, 'operator_only']);
      await house.broker.apply(house.files);
      expect(await post(resume)).toEqual([200, undefined]);
      await applyUnheard(without);
      expect(await post(pause)).toEqual([403, 'operator_only']);
    } finally {
      await house.broker.apply(house.files);
    }
    await untilState(grant, 'clean');
  });

  test('a workload whose source is gone is issued nothing and renewed nothing', async () => {
    const task = await open();
    const { grant } = await house.client().issue(task.id, { entitlement: READ, ttl_seconds: 60 });
    const other = trust()
      .replace('{ name: dev, kind: oidc', '{ name: other, kind: oidc')
      .replace('/workloads, jwks', '/others, jwks')
      .replaceAll('"dev:agent-', '"other:agent-');
    const without = { ...house.files, 'trust.yaml': other };
    const refused = { status: 401, code: 'workload_token_issuer_unknown' };
    await applyUnheard(without);
    try {
      await expect(house.client().issue(task.id, { entitlement: READ })).rejects.toMatchObject(refused);
      await house.broker.apply(house.files);
      await applyUnheard(without);
      await expect(house.client().renew(grant.id, 200)).rejects.toMatchObject(refused);
    } finally {
      await house.broker.apply(house.files);
    }
    expect((await house.client().task(task.id)).grants).toMatchObject([{ id: grant.id, deadline: grant.deadline }]);
    await house.client().complete(task.id, { wait: 30 });
  });
});

describe('renewals', () => {
  test('six at once: store and target end with the longest that was answered, and each tells its own decision', async () => {
    const task = await open();
    const { grant } = await house.client().issue(task.id, { entitlement: READ, ttl_seconds: 30 });
    const answers = await Promise.all([240, 40, 200, 50, 220, 60].map((ttl) => house.client().renew(grant.id, ttl)));
    const longest = Math.max(...answers.map((answer) => Date.parse(answer.grant.deadline)));
    const ends = await endsOf(grant);
    expect(ends.store).toBe(longest);
    expect(Math.abs(ends.target - ends.store)).toBeLessThan(10_000);
    const told = await house.onStore(
      `SELECT d.action, count(DISTINCT d.id)::int AS decisions FROM mayfly.audit_events e JOIN mayfly.decisions d ON d.id = e.decision_id
       WHERE e.grant_id = $1 AND e.type = 'grant.renewed' GROUP BY d.action`,
      [bare(grant.id)],
    );
    expect(told).toEqual([{ action: 'renew', decisions: 6 }]);
    await house.client().complete(task.id, { wait: 30 });
  });

  test('a short one that overtakes a long one at the store takes nothing away at the target', async () => {
    const task = await open();
    const { grant } = await house.client().issue(task.id, { entitlement: READ, ttl_seconds: 30 });
    // The first to write waits there, before it takes the row, until we let it go.
    await house.onStore(`CREATE SEQUENCE mayfly.test_turn;
      CREATE FUNCTION mayfly.test_wait() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
        BEGIN IF nextval('mayfly.test_turn') = 1 THEN PERFORM pg_advisory_xact_lock(77); END IF; RETURN NULL; END $$;
      CREATE TRIGGER test_wait BEFORE UPDATE OF deadline ON mayfly.grants EXECUTE FUNCTION mayfly.test_wait()`);
    try {
      await connected(house.store.ownerUrl.reveal(), async (client) => {
        await client.query('SELECT pg_advisory_lock(77)');
        const long = house.client().renew(grant.id, 240);
        await vi.waitFor(
          async () =>
            expect(
              await house.onStore(`SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND objid = 77 AND NOT granted`),
            ).toHaveLength(1),
          { timeout: 60_000, interval: 20 },
        );
        await house.client().renew(grant.id, 40);
        await client.query('SELECT pg_advisory_unlock(77)');
        const ends = await long.then(() => endsOf(grant));
        expect(Math.abs(ends.target - ends.store)).toBeLessThan(10_000);
      });
    } finally {
      await house.onStore('DROP FUNCTION mayfly.test_wait() CASCADE; DROP SEQUENCE mayfly.test_turn');
    }
    await house.client().complete(task.id, { wait: 30 });
  });
});

describe('denials', () => {
  test('a repeated Idempotency-Key that policy now denies ends the first grant all the same', async () => {
    const one = `@id("one") permit (principal is Mayfly::Task, action, resource) when { context.tree.live_grants < 1 };`;
    await house.broker.apply({ ...house.files, [POLICIES]: one });
    try {
      const task = await open();
      const token = await house.token();
      const body = { entitlement: READ, ttl_seconds: 300 };
      const send = async (key: string) =>
        await ask(house.url, 'POST', `/v1/tasks/${task.id}/grants`, {
          token,
          body,
          headers: { 'idempotency-key': key },
        });
      expect((await send('k1')).status).toBe(201);
      // A key that stands for nothing ends nothing.
      expect((await send('k2')).body).toMatchObject({ code: 'denied_by_policy' });
      expect((await house.client().task(task.id)).grants).toMatchObject([{ state: 'active' }]);
      expect((await send('k1')).body).toMatchObject({ code: 'denied_by_policy' });
      const [first] = (await house.client().task(task.id)).grants;
      if (first === undefined) throw new Error('the grant is gone');
      await untilState(first, 'clean');
      expect(await house.client().grant(first.id)).toMatchObject({ state: 'revoked', ended_by: 'released' });
      expect((await send('k1')).status).toBe(201);
      await house.client().complete(task.id, { wait: 30 });
    } finally {
      await house.broker.apply(house.files);
    }
  });

  test.each([
    ['a denial of policy', 'ledger-db/read-payments', 'denied_by_policy', false],
    ['a life that is shorter than the target can give', READ, 'ttl_below_minimum', true],
  ])('%s leaves its decision and its event', async (_, entitlement, code, permitted) => {
    let task = await open({ entitlements: [READ, 'ledger-db/read-payments'], phase: 'plan' });
    let refusal = '';
    // The shortest life is the rest of the task's: less than a second. On a slow machine that may be over before the ask arrives.
    for (let tries = 0; tries < 10 && refusal !== code; tries++) {
      task = await open({ entitlements: [READ, 'ledger-db/read-payments'], phase: 'plan' });
      if (code === 'ttl_below_minimum') {
        await connected(house.server.superuserUrl(house.store.database), (client) =>
          client.query(
            `UPDATE mayfly.tasks SET not_after = clock_timestamp() + interval '950 milliseconds' WHERE id = $1`,
            [bare(task.id)],
          ),
        );
      }
      refusal = await house
        .client()
        .issue(task.id, { entitlement })
        .then(
          () => 'issued',
          (error: unknown) => (error instanceof ProblemError ? error.code : String(error)),
        );
    }
    expect(refusal).toBe(code);
    expect(
      await house.onStore(
        `SELECT d.action, d.permitted, e.decision, e.payload->>'refusal' AS refusal FROM mayfly.decisions d
         JOIN mayfly.audit_events e ON e.decision_id = d.id AND e.type = 'decision.made' WHERE d.task_id = $1`,
        [bare(task.id)],
      ),
    ).toEqual([{ action: 'issue', permitted, decision: 'deny', refusal: code }]);
  });
});

test('a role that comes back between contained and clean is fenced again, and ends clean', async () => {
  const task = await open();
  const { grant } = await house.client().issue(task.id, { entitlement: READ, ttl_seconds: 300 });
  const role = `mfy_${bare(grant.id).replaceAll('-', '')}`;
  const drop = 'EXECUTE ON FUNCTION mayfly.drop';
  const broker = `${house.targetDatabase}_broker`;
  await house.onTarget(`REVOKE ${drop} FROM ${broker}`);
  try {
    const done = await house.client().complete(task.id, { wait: 30 });
    expect(done.revocations).toMatchObject([{ state: 'contained' }]);
    await house.onTarget(`ALTER ROLE ${role} LOGIN PASSWORD 'restored' CONNECTION LIMIT 4`);
    // While nothing can be dropped: it is fencing that did this.
    await vi.waitFor(async () => expect(await roleOf(grant)).toMatchObject({ can_login: false, has_password: false }), {
      timeout: 60_000,
      interval: 50,
    });
    await untilState(grant, 'contained');
  } finally {
    await house.onTarget(`GRANT ${drop} TO ${broker}`);
  }
  await untilState(grant, 'clean', 45_000);
  expect(await roleOf(grant)).toBeUndefined();
});

test('a tree that is held alone holds up nobody else', async () => {
  const [held, other] = [await open(), await open()];
  const [, , space, root, births] = birthLockKeys(bare(held.id) as Parameters<typeof birthLockKeys>[0]);
  await connected(house.store.ownerUrl.reveal(), async (client) => {
    await client.query('SELECT pg_advisory_lock($1, $3), pg_advisory_lock($2, $3)', [space, births, root]);
    // Asked at one moment, so that they share statements.
    const settled: string[] = [];
    const issue = async (of: { id: string }) => {
      const { grant } = await house.client().issue(of.id, { entitlement: READ });
      settled.push(grant.task_id);
    };
    const waiting = Promise.allSettled([held, held, held].map(issue));
    await Promise.all([other, other, other, other, other, other].map(issue));
    expect(settled).toEqual(Array.from({ length: 6 }, () => other.id));
    await client.query('SELECT pg_advisory_unlock_all()');
    expect(await waiting).toEqual([1, 2, 3].map(() => ({ status: 'fulfilled', value: undefined })));
  });
  for (const { id } of [held, other]) await house.client().complete(id, { wait: 30 });
});
