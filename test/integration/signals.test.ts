import { Database } from '../../src/store/database.ts';
import { forgetSignals } from '../../src/store/signals.ts';
import { afterAll, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest';
import { AgentKey, type GrantBody, type TaskBody } from '../../src/client/index.ts';
import { signalsPageBody } from '../../src/http/signal-bodies.ts';
import { whatIfBody } from '../../src/http/what-if-bodies.ts';
import { ask } from '../support/ask.ts';
import { Agent, outcome } from '../support/delegating.ts';
import { type House, startHouse } from '../support/house.ts';
import { operatorsOf } from '../support/operators.ts';
import { FORBIDS, ISSUER, send, signal, sources } from '../support/signals.ts';

const READ = 'ledger-db/read-invoices';
const PAY = 'ledger-db/read-payments';
const POLICIES = 'policies/test.cedar';
const WAIT = { timeout: 20_000, interval: 30 };

let house: House;
let owner: Agent;
let key: AgentKey;
let files: Record<string, string>;
beforeAll(async () => {
  house = await startHouse({ proofOfPossession: 'required', env: { MAYFLY_SWEEP_SECONDS: '1' } });
  owner = await Agent.make(house);
  key = await AgentKey.make();
  files = {
    ...house.files,
    'trust.yaml': `${house.files['trust.yaml'] ?? ''}${sources(key.thumbprint)}`,
    [POLICIES]: `${house.files[POLICIES] ?? ''}${FORBIDS}`,
  };
});
afterAll(() => house?.stop());
beforeEach(async () => {
  await house.onStore('DELETE FROM mayfly.signals_standing');
  await house.broker.apply(files);
});

const issue = async (task: { id: string }, by = owner) =>
  await by.client().issue(task.id, { entitlement: READ, ttl_seconds: 120 });

async function untilRevoked(grant: GrantBody): Promise<GrantBody> {
  return await vi.waitFor(async () => {
    const now = await owner.client().grant(grant.id);
    expect(now).toMatchObject({ state: 'revoked' });
    return now;
  }, WAIT);
}

describe('each kind enters decisions and ends what it does not permit any more', () => {
  const workload = { workload: 'dev:agent-recon' };
  const user = { issuer: ISSUER, user: 'user:dana' };
  const cases: readonly [string, string, object, object, string][] = [
    [
      'a workload’s risk',
      'workload_risk',
      { subject: workload, level: 'high' },
      { subject: workload, level: 'low' },
      'no-high-risk',
    ],
    [
      'an incident everywhere',
      'incident',
      { scope: 'all', state: 'open' },
      { scope: 'all', state: 'closed' },
      'no-incident',
    ],
    [
      'a freeze of an environment',
      'change_freeze',
      { scope: { environment: 'demo' }, state: 'on' },
      { scope: { environment: 'demo' }, state: 'off' },
      'no-freeze',
    ],
    [
      'a freeze of a target',
      'change_freeze',
      { scope: { target: 'ledger-db' }, state: 'on' },
      { scope: { target: 'ledger-db' }, state: 'off' },
      'no-freeze',
    ],
    [
      'a user’s device',
      'device',
      { subject: user, state: 'not-compliant' },
      { subject: user, state: 'compliant' },
      'no-device',
    ],
    [
      'a workload’s device',
      'device',
      { subject: workload, state: 'not-compliant' },
      { subject: workload, state: 'compliant' },
      'no-device',
    ],
    ['a user', 'user', { subject: user, state: 'disabled' }, { subject: user, state: 'enabled' }, 'no-user'],
  ];

  test.each(cases)('%s', async (_what, kind, bad, good, policy) => {
    const task = await owner.open();
    const { grant } = await issue(task);
    const sent = signal(kind, { ...bad, reason: 'said by the test' });
    const reply = await send(house, sent);
    expect([reply.status, reply.body]).toEqual([
      200,
      { id: sent['id'], outcome: 'taken', received_at: expect.any(String) },
    ]);
    const refused = await owner.call('POST', `/v1/tasks/${task.id}/grants`, { entitlement: READ });
    expect(outcome(refused)).toEqual([403, 'denied_by_policy']);

    expect(await untilRevoked(grant)).toMatchObject({ ended_by: 'signal' });
    const [end] = await house.onStore(
      `SELECT cause, payload FROM mayfly.audit_events WHERE grant_id = $1 AND type = 'grant.ended'`,
      [grant.id.slice(4)],
    );
    expect(end).toMatchObject({
      cause: 'signal',
      payload: { because: 'denied_by_policy', policies: [policy], source: 'risk', kind, key: sent['id'] },
    });
    expect((await send(house, signal(kind, good))).body).toMatchObject({ outcome: 'taken' });
    expect((await issue(task)).grant.state).toBe('active');
  });
});

const ALL = { scope: 'all' };
const risk = (level: string, more: object = {}) =>
  signal('workload_risk', { subject: { workload: 'dev:agent-recon' }, level, ...more });
/** Whatever stands has just expired. */
const expire = () => house.onStore('UPDATE mayfly.signals_standing SET expires_at = clock_timestamp()');
const ago = (seconds: number) => new Date(Date.now() - seconds * 1000).toISOString();
const asked = async (task: { id: string }, entitlement = READ) =>
  outcome(await owner.call('POST', `/v1/tasks/${task.id}/grants`, { entitlement }));

describe('a source is believed', () => {
  const incident = () => signal('incident', { ...ALL, state: 'closed' });

  test('only by its own token, and only where the catalog names it', async () => {
    expect(outcome(await ask(house.url, 'POST', '/v1/signals', { body: incident() }))).toEqual([
      401,
      'workload_token_missing',
    ]);
    expect(outcome(await send(house, incident(), 'agent-recon'))).toEqual([403, 'signal_source_only']);
    const token = await operatorsOf(house).token('admin');
    expect(outcome(await ask(house.url, 'POST', '/v1/signals', { token, body: incident() }))).toEqual([
      403,
      'signal_source_only',
    ]);
    const audience = 'https://elsewhere.example';
    const elsewhere = await house.issuer.signWorkloadToken({ subject: 'risk-engine', audience, ttl_seconds: 60 });
    const away = await ask(house.url, 'POST', '/v1/signals', { token: elsewhere.token, body: incident() });
    expect(outcome(away)).toEqual([401, 'workload_token_audience_wrong']);
    expect(outcome(await send(house, incident()))).toEqual([200, undefined]);
  });

  test('only with the key that it proves, where the catalog names one', async () => {
    const proven = async (by: AgentKey) => {
      const token = await house.token('keyed-source');
      const dpop = await by.prove('POST', `${house.url}/v1/signals`, token);
      return outcome(await ask(house.url, 'POST', '/v1/signals', { token, headers: { dpop }, body: incident() }));
    };
    expect(outcome(await send(house, incident(), 'keyed-source'))).toEqual([401, 'proof_missing']);
    expect(await proven(await AgentKey.make())).toEqual([401, 'proof_key_wrong']);
    expect(await proven(key)).toEqual([200, undefined]);
  });

  test('only about what it may tell of', async () => {
    const user = { subject: { issuer: ISSUER, user: 'user:dana' }, state: 'disabled' };
    expect(outcome(await send(house, signal('user', user), 'desk'))).toEqual([403, 'signal_kind_refused']);
  });
});

test.each<[string, object, [number, string]]>([
  ['a kind that is none', { kind: 'weather' }, [400, 'invalid_request']],
  ['a level that is none', { level: 'severe' }, [400, 'invalid_request']],
  ['a scope where a subject belongs', { subject: 'all' }, [400, 'invalid_request']],
  ['a member that is not known', { severity: 3 }, [400, 'invalid_request']],
  ['no id', { id: '' }, [400, 'invalid_request']],
  ['a time that is none', { occurred_at: 'yesterday' }, [400, 'invalid_request']],
  ['a reason of two lines', { reason: 'a\nb' }, [400, 'invalid_request']],
  ['a workload of no source', { subject: { workload: 'prod:agent-recon' } }, [422, 'signal_subject_unknown']],
  ['too old a time', { occurred_at: ago(301) }, [422, 'signal_too_old']],
  ['a time to come', { occurred_at: ago(-3_600) }, [422, 'signal_in_future']],
  ['an end that is past', { expires_at: ago(1) }, [422, 'signal_too_old']],
])('%s is refused, and says nothing', async (_what, wrong, refusal) => {
  expect(outcome(await send(house, { ...risk('high'), ...wrong }))).toEqual(refusal);
  expect(await asked(await owner.open())).toEqual([201, undefined]);
});

test.each([
  ['an environment', { scope: { environment: 'mars' } }],
  ['a target', { scope: { target: 'mars' } }],
])('%s that the catalog does not have is refused', async (_what, scope) => {
  expect(outcome(await send(house, signal('incident', { ...scope, state: 'open' })))).toEqual([
    422,
    'signal_subject_unknown',
  ]);
});

describe('a signal', () => {
  test('counts once: the same again is answered the same, another one by its id is refused', async () => {
    const first = risk('medium');
    const answer = await send(house, first);
    expect((await send(house, risk('low'))).status).toBe(200);
    const again = await send(house, first);
    expect([again.status, again.body]).toEqual([200, answer.body]);
    expect(outcome(await send(house, { ...first, level: 'high' }))).toEqual([409, 'signal_id_used']);
    expect((await house.onStore('SELECT FROM mayfly.signals WHERE key = $1', [first['id']])).length).toBe(1);
    // Another source may have the same id.
    expect((await send(house, first, 'desk')).body).toMatchObject({ outcome: 'taken' });
    expect((await send(house, risk('low'), 'desk')).status).toBe(200);
  });

  test('is ordered by its own time: an older one never stands over a newer one, and of the same time the worse one does', async () => {
    const task = await owner.open();
    const at = ago(2);
    expect((await send(house, risk('high'))).body).toMatchObject({ outcome: 'taken' });
    expect((await send(house, risk('low', { occurred_at: at }))).body).toMatchObject({ outcome: 'superseded' });
    expect(await asked(task)).toEqual([403, 'denied_by_policy']);
    const same = risk('low');
    const time = { occurred_at: same['occurred_at'] };
    expect((await send(house, same)).body).toMatchObject({ outcome: 'taken' });
    expect((await send(house, risk('critical', time))).body).toMatchObject({ outcome: 'taken' });
    expect((await send(house, risk('medium', time))).body).toMatchObject({ outcome: 'superseded' });
    expect(await asked(task)).toEqual([403, 'denied_by_policy']);
    await send(house, risk('low'));
    expect(await asked(task)).toEqual([201, undefined]);
  });

  test('of several sources the worst word counts', async () => {
    const task = await owner.open();
    await send(house, risk('high'), 'desk');
    await send(house, risk('low'));
    expect(await asked(task)).toEqual([403, 'denied_by_policy']);
    await send(house, risk('low'), 'desk');
    expect(await asked(task)).toEqual([201, undefined]);
  });

  test('may come with others, and what is wrong with one is told in its place', async () => {
    const [one, old, opened] = [
      risk('medium'),
      risk('high', { occurred_at: ago(900) }),
      signal('incident', { ...ALL, state: 'open', name: 'INC-1' }),
    ];
    const closed = signal('incident', { ...ALL, state: 'closed', name: 'INC-1' });
    const { status, body } = await send(house, {
      kind: 'batch',
      signals: [one, one, old, opened, signal('heartbeat'), closed],
    });
    expect([status, body]).toEqual([
      200,
      {
        signals: [
          expect.objectContaining({ id: one['id'], outcome: 'taken' }),
          expect.objectContaining({ id: one['id'], outcome: 'taken' }),
          { id: old['id'], problem: expect.objectContaining({ code: 'signal_too_old' }) },
          expect.objectContaining({ id: opened['id'], outcome: 'taken' }),
          expect.objectContaining({ outcome: 'taken' }),
          expect.objectContaining({ id: closed['id'], outcome: 'taken' }),
        ],
      },
    ]);
    expect(await asked(await owner.open())).toEqual([201, undefined]);
    await send(house, risk('low'));
  });

  test('of two incidents on one scope the end of one leaves the other open', async () => {
    const task = await owner.open();
    const incident = (name: string, state: string) => send(house, signal('incident', { ...ALL, name, state }));
    await incident('INC-1', 'open');
    await incident('INC-2', 'open');
    await incident('INC-1', 'closed');
    expect(await asked(task)).toEqual([403, 'denied_by_policy']);
    await incident('INC-2', 'closed');
    expect(await asked(task)).toEqual([201, undefined]);
  });

  test('that nothing is open, where nothing was, moves nothing; of a batch each word tells what it moved', async () => {
    const task = await owner.open();
    const { grant } = await issue(task);
    const words = ['INC-1', 'INC-2'].map((name) => signal('incident', { ...ALL, name, state: 'closed' }));
    await send(house, { kind: 'batch', signals: words });
    const risks = [
      risk('medium'),
      signal('workload_risk', { subject: { workload: 'dev:agent-other' }, level: 'high' }),
    ];
    const users = ['user:dana', 'user:kim'].map((user) =>
      signal('user', { subject: { issuer: ISSUER, user }, state: 'enabled' }),
    );
    const freeze = signal('change_freeze', { scope: { target: 'ledger-db' }, state: 'on', name: 'short' });
    const thaw = signal('change_freeze', { scope: { target: 'ledger-db' }, state: 'off', name: 'short' });
    await send(house, { kind: 'batch', signals: [...risks, ...users, freeze, thaw] });
    const told = async (word: Record<string, unknown> | undefined) => {
      const [event] = await house.onStore<{ moved: number | null }>(
        `SELECT (payload->>'decided_again')::int AS moved FROM mayfly.audit_events WHERE type = 'signal.received' AND payload->>'key' = $1`,
        [word?.['id']],
      );
      return event?.moved;
    };
    const [scoped] = await house.onStore(
      `SELECT payload->>'target' AS target FROM mayfly.audit_events WHERE payload->>'key' = $1`,
      [freeze['id']],
    );
    expect(scoped).toEqual({ target: 'ledger-db' });
    expect([await told(words[0]), await told(words[1]), await told(freeze), await told(thaw)]).toEqual([
      ...[null, null, null, null],
    ]);
    expect(await told(risks[1])).toBe(0);
    expect(await told(risks[0])).toBeGreaterThan(0);
    expect(await told(users[0])).toBeGreaterThan(0);
    expect(await owner.client().grant(grant.id)).toMatchObject({ state: 'active' });
    await send(house, risk('low'));
  });

  test('says nothing once it has expired, and what hung on it ends', async () => {
    const task = await owner.open({ entitlements: [READ, PAY] });
    const device = (more: object = {}) =>
      signal('device', { subject: { workload: 'dev:agent-recon' }, state: 'compliant', ...more });
    expect(await asked(task, PAY)).toEqual([403, 'denied_by_policy']);
    const lasting = device({ expires_at: ago(-3_600) });
    await send(house, lasting);
    const { grant } = await owner.client().issue(task.id, { entitlement: PAY, ttl_seconds: 100 });
    await expire();
    expect(await untilRevoked(grant)).toMatchObject({ ended_by: 'signal' });
    expect(await asked(task, PAY)).toEqual([403, 'denied_by_policy']);
    const [told] = await house.onStore(`SELECT subject, payload FROM mayfly.audit_events WHERE type = 'signal.lapsed'`);
    expect(told).toMatchObject({
      subject: 'workload:dev:agent-recon',
      payload: { source: 'risk', key: lasting['id'], kind: 'device', value: null, decided_again: expect.any(Number) },
    });
  });

  test('is evidence, with what it moved, and is shown to operators', async () => {
    const task = await owner.open();
    const { grant } = await issue(task);
    const sent = risk('high', { reason: 'a strange host' });
    await send(house, sent);
    await untilRevoked(grant);
    const [event] = await house.onStore(
      `SELECT agent, subject, payload FROM mayfly.audit_events WHERE type = 'signal.received' AND payload->>'key' = $1`,
      [sent['id']],
    );
    expect(event).toMatchObject({
      ...{ agent: 'dev:risk-engine', subject: 'workload:dev:agent-recon' },
      payload: {
        source: 'risk',
        kind: 'workload_risk',
        value: 'high',
        outcome: 'taken',
        reason: 'a strange host',
        decided_again: expect.any(Number),
      },
    });
    const page = signalsPageBody.parse((await operatorsOf(house).get('/v1/signals?standing=true&limit=1')).body);
    expect(page.items).toEqual([
      expect.objectContaining({
        source: 'risk',
        source_id: sent['id'],
        value: 'high',
        reason: 'a strange host',
        standing: true,
      }),
    ]);
    expect(page.sources.map(({ name, stale }) => [name, stale])).toEqual([
      ['risk', false],
      ['desk', false],
      ['keyed', false],
    ]);
    await send(house, risk('low'));
    const metrics = (await ask(house.url, 'GET', '/metrics')).text;
    expect(metrics).toMatch(/^mayfly_signals_total\{source="risk",kind="workload_risk",outcome="taken"\} [1-9]/m);
    expect(metrics).toMatch(/^mayfly_signal_source_age_seconds\{source="risk"\} [0-9.]+$/m);
  });

  test('ends what it forbids, whatever else policy fails for: it is not counted, and that the sweep stands still keeps nothing', async () => {
    const calm = await owner.open({ entitlements: [READ, PAY] });
    const task = await owner.open({ subject: 'user:kim' });
    const devices = signal('device', { subject: { workload: 'dev:agent-recon' }, state: 'compliant' });
    await send(house, devices);
    const failing = (await owner.client().issue(calm.id, { entitlement: PAY, ttl_seconds: 120 })).grant;
    const { grant } = await issue(task);
    await house.broker.apply({
      ...files,
      [POLICIES]: `${files[POLICIES] ?? ''}
@id("fails") forbid (principal is Mayfly::Task, action, resource == Mayfly::Entitlement::"${PAY}") when { principal.depth - 9223372036854775807 - 9223372036854775807 < 0 };`,
    });
    // It fails, and nothing of the rest is believed.
    await vi.waitFor(async () => {
      const metrics = (await ask(house.url, 'GET', '/metrics')).text;
      expect(metrics).toMatch(/^mayfly_drift_stopped 1$/m);
    }, WAIT);
    await send(house, signal('user', { subject: { issuer: ISSUER, user: 'user:kim' }, state: 'disabled' }));
    expect(await untilRevoked(grant)).toMatchObject({ ended_by: 'signal' });
    expect(await owner.client().grant(failing.id)).toMatchObject({ state: 'active' });
    await send(house, signal('user', { subject: { issuer: ISSUER, user: 'user:kim' }, state: 'enabled' }));
    await owner.client().release(failing.id);
  });

  test('ends what it forbids also where drift is only told', async () => {
    const task = await owner.open();
    const { grant } = await issue(task);
    await house.onStore(
      `UPDATE mayfly.catalog_revisions SET enforce = 'report' WHERE number = (SELECT revision FROM mayfly.catalog_active)`,
    );
    await send(house, risk('high'));
    expect(await untilRevoked(grant)).toMatchObject({ ended_by: 'signal' });
    await send(house, risk('low'));
  });
});

describe('where drift is only told, what a signal', () => {
  const told =
    '@id("told-risk") @enforce("report") forbid (principal is Mayfly::Task, action, resource) when { principal.workload.risk == "medium" };';
  const madeOf = async (task: TaskBody) =>
    (await owner.client().timeline(task.id)).filter(
      ({ type, payload }) => type === 'decision.made' && payload['enforce'] === 'report',
    );
  /** Decided by it, whatever came of that. */
  const decided = (task: TaskBody, count: number) =>
    vi.waitFor(async () => expect(await madeOf(task)).toHaveLength(count), WAIT);

  test('has a policy say that reports (by `@enforce`) ends nothing, and is in the report', async () => {
    await house.broker.apply({ ...files, [POLICIES]: `${files[POLICIES] ?? ''}${told}` });
    const task = await owner.open();
    const { grant } = await issue(task);
    await send(house, risk('medium'));
    await decided(task, 1);
    expect((await madeOf(task))[0]).toMatchObject({ payload: { enforce: 'report', policies: ['told-risk'] } });
    expect(await owner.client().grant(grant.id)).toMatchObject({ state: 'active' });
    await send(house, risk('low'));
  });

  test('does not forbid it does not end either, although it has the grant decided again and drift denies that; what it forbids it ends', async () => {
    const task = await owner.open();
    const { grant } = await issue(task);
    const drifting = '@id("drifted") forbid (principal is Mayfly::Task, action == Mayfly::Action::"retain", resource);';
    const changed = { ...files, [POLICIES]: `${files[POLICIES] ?? ''}${drifting}` };
    const body = { files: changed, enforce: 'report', expect_revoked: 1 };
    const applied = await operatorsOf(house).post('/v1/catalog/apply', body, 'admin');
    expect([applied.status, applied.body['code']]).toEqual([201, undefined]);
    await decided(task, 1);
    await send(house, risk('medium'));
    await decided(task, 2);
    for (const { payload } of await madeOf(task)) expect(payload).toMatchObject({ policies: ['drifted'] });
    expect(await owner.client().grant(grant.id)).toMatchObject({ state: 'active' });
    await send(house, risk('high'));
    expect(await untilRevoked(grant)).toMatchObject({ ended_by: 'signal' });
    await send(house, risk('low'));
  });
});

test('a source speaks of so many places and no more, and of those that it has spoken of it goes on', async () => {
  const [first] = [risk('low')];
  await send(house, first);
  await house.onStore(
    `INSERT INTO mayfly.signals_standing (source, kind, subject, name, value, occurred_at, signal_id)
     SELECT source, kind, 'workload:dev:agent-' || n, '', 'low', now(), signal_id FROM mayfly.signals_standing, generate_series(1, 99999) n`,
  );
  const other = signal('workload_risk', { subject: { workload: 'dev:agent-one-more' }, level: 'high' });
  expect(outcome(await send(house, other))[1]).toBe('signals_full');
  expect((await send(house, risk('medium'))).status).toBe(200);
  // Of another source as many; and what is over makes room.
  expect(
    (await send(house, signal('workload_risk', { subject: { workload: 'dev:agent-x' }, level: 'low' }), 'desk')).status,
  ).toBe(200);
  await house.onStore(`DELETE FROM mayfly.signals_standing WHERE subject = 'workload:dev:agent-7'`);
  expect((await send(house, other)).status).toBe(200);
  const [index] = await house.onStore(
    `SELECT pg_get_expr(i.indpred, i.indrelid) AS of, i.indisvalid AS valid FROM pg_index i WHERE i.indexrelid = 'mayfly.signals_standing_to_forget'::regclass`,
  );
  expect(index).toEqual({ of: expect.stringMatching(/closed.*off.*lapsed/), valid: true });
});

describe('a source that owes a heartbeat', () => {
  const watching = (required: boolean) => ({
    ...files,
    'trust.yaml': `${files['trust.yaml'] ?? ''}  - { name: watch, workloads: ["dev:watch"], proof_of_possession: none, max_age_seconds: 3600, heartbeat: true, required: ${required}, kinds: [device] }`,
  });
  const beat = async () => expect((await send(house, signal('heartbeat'), 'watch')).status).toBe(200);
  const silence = async () => {
    await house.onStore(
      `UPDATE mayfly.signal_sources SET heard_at = heard_at - interval '2 hours' WHERE source = 'watch'`,
    );
    const page = signalsPageBody.parse((await operatorsOf(house).get('/v1/signals')).body);
    expect(page.sources.find(({ name }) => name === 'watch')).toMatchObject({ stale: true });
  };

  test('and is silent: where it is required nothing begins, what lives goes on, and it is all well with the next one', async () => {
    const task = await owner.open();
    const { grant } = await issue(task);
    await house.broker.apply(watching(true));
    // Nobody has heard it yet.
    const refused = await owner.call('POST', `/v1/tasks/${task.id}/grants`, { entitlement: READ });
    expect([...outcome(refused), refused.headers['retry-after']]).toEqual([503, 'stale_signals', '5']);
    expect(outcome(await owner.call('POST', `/v1/grants/${grant.id}/renew`, { ttl_seconds: 60 }))).toEqual([
      503,
      'stale_signals',
    ]);
    await beat();
    expect(await asked(task)).toEqual([201, undefined]);
    await silence();
    await vi.waitFor(async () => {
      const metrics = (await ask(house.url, 'GET', '/metrics')).text;
      expect(metrics).toMatch(/^mayfly_signal_source_stale\{source="watch",required="true"\} 1$/m);
    }, WAIT);
    // Decided again meanwhile, though a policy forbids silence.
    await house.onStore('UPDATE mayfly.grants SET retained_revision = 0 WHERE id = $1', [grant.id.slice(4)]);
    await vi.waitFor(async () => {
      const [row] = await house.onStore<{ retained: number }>(
        'SELECT retained_revision::int AS retained FROM mayfly.grants WHERE id = $1',
        [grant.id.slice(4)],
      );
      expect(row?.retained).toBeGreaterThan(0);
    }, WAIT);
    expect(await owner.client().grant(grant.id)).toMatchObject({ state: 'active' });
    // It is taken back all the same.
    await owner.client().release(grant.id);
    await untilRevoked(grant);
  });

  test('and is silent: where it is not required policies know, and its good word counts no more', async () => {
    await house.broker.apply(watching(false));
    const task = await owner.open();
    await beat();
    await silence();
    expect(await asked(task)).toEqual([403, 'denied_by_policy']);
    const [decision] = await house.onStore<{ policies: string[]; signals: object }>(
      `SELECT policies, inputs->'context'->'signals' AS signals FROM mayfly.decisions WHERE task_id = $1 ORDER BY decided_at DESC LIMIT 1`,
      [task.id.slice(5)],
    );
    expect(decision).toEqual({
      policies: ['no-silence'],
      signals: { stale: true, stale_sources: ['watch'], stale_kinds: ['device'] },
    });
    await beat();
    expect(await asked(task)).toEqual([201, undefined]);
  });
});

describe('a source that suspends', () => {
  const user = (state: string, more: object = {}) =>
    signal('user', { subject: { issuer: ISSUER, user: 'user:dana' }, state, ...more });
  const operators = () => operatorsOf(house);
  beforeEach(async () => {
    const trust = files['trust.yaml'] ?? '';
    await house.broker.apply({
      ...files,
      'trust.yaml': trust.replace(
        'change_freeze, device, user] }',
        'change_freeze, device, user], suspends: [user, device] }',
      ),
      [POLICIES]: house.files[POLICIES] ?? '',
    });
  });
  const stateOf = async (task: TaskBody, by = owner) => (await by.client().task(task.id)).state;

  test('stops all that is done on behalf of a user, and lets it go on when it is enabled again', async () => {
    const other = await Agent.make(house, 'agent-support');
    const task = await owner.open();
    const child = await owner.beget(task, other);
    const offered = await owner.delegate(task, other);
    const [own, theirs] = [(await issue(task)).grant, (await issue(child, other)).grant];
    const elsewhere = await owner.open({ subject: 'user:kim' });
    const { grant: staying } = await issue(elsewhere);
    await send(house, user('disabled', { reason: 'left the company' }));

    expect([await stateOf(task), await stateOf(child, other), await stateOf(elsewhere)]).toEqual([
      'suspended',
      'suspended',
      'active',
    ]);
    expect(await untilRevoked(own)).toMatchObject({ ended_by: 'signal' });
    await vi.waitFor(
      async () => expect(await other.client().grant(theirs.id)).toMatchObject({ state: 'revoked', ended_by: 'signal' }),
      WAIT,
    );
    const suspended = [409, 'task_suspended'];
    expect(await asked(task)).toEqual(suspended);
    expect(outcome(await other.call('POST', `/v1/tasks/${offered.id}/claim`, {}))).toEqual(suspended);
    expect(
      outcome(
        await owner.call('POST', `/v1/tasks/${task.id}/children`, { delegation: await owner.offerOf(task, other) }),
      ),
    ).toEqual(suspended);
    const request = await house.sign({ workload: 'agent-recon', keyThumbprint: owner.key.thumbprint });
    expect(outcome(await owner.call('POST', '/v1/tasks', { request }))).toEqual(suspended);
    const about = {
      subject: { type: 'task', id: task.id },
      action: { name: 'read' },
      resource: { type: 'document', id: '1' },
    };
    expect((await owner.call('POST', '/access/v1/evaluation', about)).body).toMatchObject({
      decision: false,
      context: { code: 'task_suspended' },
    });
    expect(await owner.client().grant(staying.id)).toMatchObject({ state: 'active' });

    await send(house, user('enabled'));
    expect([await stateOf(task), await stateOf(child, other)]).toEqual(['active', 'active']);
    expect(await asked(task)).toEqual([201, undefined]);
    expect((await owner.call('POST', '/v1/tasks', { request })).status).toBe(201);
    const told = (await owner.client().timeline(task.id)).filter(({ type }) =>
      /^task\.(suspended|resumed)$/.test(type),
    );
    expect(told.map(({ type, payload }) => [type, payload['source'], payload['kind']])).toEqual([
      ['task.suspended', 'risk', 'user'],
      ['task.resumed', 'risk', 'user'],
    ]);
  });

  test('does not let go on what an operator has suspended; the operator does, whatever else did', async () => {
    const task = await owner.open();
    const { grant } = await issue(task);
    const path = `/v1/tasks/${task.id}`;
    const reply = await operators().post(`${path}/suspend`, { reason: 'looked strange' });
    expect([reply.status, reply.body]).toEqual([200, expect.objectContaining({ state: 'suspended' })]);
    expect(await untilRevoked(grant)).toMatchObject({ ended_by: 'operator' });
    expect((await operators().post(`${path}/suspend`, { reason: 'said again' })).status).toBe(200);
    await send(house, user('disabled'));
    await send(house, user('enabled'));
    expect(await stateOf(task)).toBe('suspended');
    expect((await operators().post(`${path}/resume`)).body).toMatchObject({ state: 'active' });
    expect(await asked(task)).toEqual([201, undefined]);
    await send(house, user('disabled'));
    expect(await stateOf(task)).toBe('suspended');
    expect((await operators().post(`${path}/resume`, { reason: 'known' })).body).toMatchObject({ state: 'active' });
    expect(await asked(task)).toEqual([201, undefined]);
    await send(house, user('enabled'));
    await owner.client().cancel(task.id, { wait: 20 });
    expect(outcome(await operators().post(`${path}/suspend`, { reason: 'late' }))).toEqual([409, 'task_ended']);
    expect(outcome(await operators().post(`${path}/resume`))).toEqual([409, 'task_ended']);
  });

  test('lets go on what it suspended when that expires, and a suspended task still ends', async () => {
    const [task, left] = [await owner.open(), await owner.open()];
    await send(
      house,
      signal('device', { subject: { workload: 'dev:agent-recon' }, state: 'not-compliant', expires_at: ago(-3_600) }),
    );
    expect(await stateOf(task)).toBe('suspended');
    await owner.client().cancel(left.id, { wait: 20 });
    expect(await stateOf(left)).toBe('cancelled');
    await expire();
    await vi.waitFor(async () => expect(await stateOf(task)).toBe('active'), WAIT);
    expect(await stateOf(left)).toBe('cancelled');
  });
});

test('whom a source has suspended that leaves the catalog stays so, which is told before it is applied and after it', async () => {
  const suspending = (files['trust.yaml'] ?? '').replace(
    'change_freeze, device, user] }',
    'change_freeze, device, user], suspends: [user] }',
  );
  await house.broker.apply({ ...files, 'trust.yaml': suspending });
  const task = await owner.open();
  await send(house, signal('user', { subject: { issuer: ISSUER, user: 'user:dana' }, state: 'disabled' }));
  const operators = operatorsOf(house);
  const list = async () => signalsPageBody.parse((await operators.get('/v1/signals')).body).left_suspended;
  expect(await list()).toEqual([]);
  const without = { ...files, 'trust.yaml': suspending.replace(/^ {2}- \{ name: risk,[^}]*\}\n/m, '') };
  const left = [{ source: 'risk', kind: 'user', tasks: expect.any(Number) }];
  expect(whatIfBody.parse((await operators.post('/v1/catalog/diff', { files: without })).body).left_suspended).toEqual(
    left,
  );
  expect(whatIfBody.parse((await operators.post('/v1/catalog/diff', { files })).body).left_suspended).toEqual([]);
  await house.broker.apply(without);
  expect(await list()).toEqual(left);
  const before = (await list())[0]?.tasks ?? 0;
  expect((await owner.client().task(task.id)).state).toBe('suspended');
  expect((await operators.post(`/v1/tasks/${task.id}/resume`, { reason: 'its source is gone' })).status).toBe(200);
  expect((await list())[0]?.tasks ?? 0).toBe(before - 1);
});

test('what is over and old is forgotten, by the login that brokers have', async () => {
  const db = new Database({ url: house.store.runtimeUrl, connections: 1, onError: () => {} });
  try {
    await house.onStore(
      `INSERT INTO mayfly.signals (id, source, key, body_digest, kind, subject, name, value, occurred_at, received_at, outcome)
       VALUES ('0198c0de-7a11-7000-8000-0123456789ab', 'old', 'k', '', 'user', 'user:x', '', 'enabled', now() - interval '3 days', now() - interval '3 days', 'taken')`,
    );
    expect(await forgetSignals(db, 100)).toBe(false);
    expect(await house.onStore(`SELECT FROM mayfly.signals WHERE source = 'old'`)).toEqual([]);
  } finally {
    await db.close();
  }
});
