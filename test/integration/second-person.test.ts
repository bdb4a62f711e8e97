import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from 'vitest';
import { awaitingBody } from '../../src/http/awaiting.ts';
import { catalogBody } from '../../src/http/catalog-bodies.ts';
import { ask, type Reply } from '../support/ask.ts';
import { startCli } from '../support/cli.ts';
import { type House, startHouse } from '../support/house.ts';
import { grantsIn, type Operators, operatorsOf } from '../support/operators.ts';

const APPLY = '/v1/catalog/apply';
const REASON = { reason: 'CHG-4711' };

type Files = Readonly<Record<string, string>>;

let house: House;
let operators: Operators;
let made = 0;
beforeAll(async () => {
  house = await startHouse();
  operators = operatorsOf(house);
});
afterAll(async () => {
  await house?.stop();
});
afterEach(async () => {
  await house.broker.apply(house.files);
});

const said = ({ status, body }: Reply) => [status, body['code'] ?? body['status'] ?? 'done'];
/** A catalog of its own, with this `catalog.yaml`. */
const having = (control: string | null): Files => ({
  ...house.files,
  'policies/own.cedar': `// The ${++made}th.\n`,
  ...(control === null ? {} : { 'catalog.yaml': control }),
});
const apply = async (who: string, files: Files, more: object = {}) =>
  await operators.post(APPLY, { files, ...more }, 'admin', who);
const inForce = async () => catalogBody.parse((await operators.get('/v1/catalog')).body);
const told = async (type: string) =>
  await house.onStore<{ subject: string; resource: string; payload: Record<string, unknown> }>(
    'SELECT subject, resource, payload FROM mayfly.audit_events WHERE type = $1 ORDER BY ts, id',
    [type],
  );

describe('an apply over HTTP', () => {
  test('puts a catalog in force, with who and which commit; again it is the same', async () => {
    const files = having(null);
    const applied = await apply('olga', files, { commit: 'c0ffee' });
    expect(applied.status).toBe(201);
    expect(catalogBody.parse(applied.body)).toMatchObject({
      ...{ applied_by: 'dev-operators:olga', commit: 'c0ffee', signed: false, serial: null, four_eyes: [] },
      enforce: 'revoke',
    });
    const again = await apply('omar', files);
    expect([again.status, again.body['revision']]).toEqual([200, applied.body['revision']]);
    expect((await told('catalog.applied')).at(-1)).toMatchObject({
      subject: 'dev-operators:olga',
      payload: { revision: applied.body['revision'], commit: 'c0ffee', living: 0, would_end: 0 },
    });
    // Whoever asks this replica next is answered by it.
    expect((await house.client().openTask(await house.sign())).task.state).toBe('active');
  });

  test('is held to the share of what lives, to its validity, and to the role', async () => {
    const { task } = await grantsIn(house, 2);
    const none = { ...having(null), 'policies/test.cedar': '// Nothing is permitted.\n' };
    const refused = await apply('olga', none);
    expect(said(refused)).toEqual([409, 'too_much_drift']);
    expect(refused.body).toMatchObject({ living: 2, would_end: 2 });
    expect(said(await apply('olga', none, { expect_revoked: 1 }))).toEqual([409, 'too_much_drift']);
    expect(said(await apply('olga', { ...none, 'trust.yaml': '' }))).toEqual([422, 'catalog_invalid']);
    expect(said(await operators.post(APPLY, { files: none }, 'operator'))).toEqual([403, 'operator_only']);
    expect(said(await apply('olga', none, { expect_revoked: 2 }))).toEqual([201, 'done']);
    await vi.waitFor(
      async () =>
        expect(
          await house.onStore(`SELECT FROM mayfly.grants WHERE state = 'revoked' AND ended_by = 'drift'`),
        ).toHaveLength(2),
      { timeout: 20_000, interval: 50 },
    );
    await house.broker.apply(house.files);
    await house.client().cancel(task.id, { wait: 20 });
  });

  test('two at once: one is in force, and the other is told', async () => {
    const replies = await Promise.all(['olga', 'omar'].map((who) => apply(who, having(null))));
    const outcomes = replies.map(said);
    expect(outcomes.filter(([status]) => status === 201).length).toBeGreaterThan(0);
    // One after another they are two; side by side one waits its turn or meets a changed catalog.
    const known: readonly unknown[] = ['done', 'catalog_changed', 'comparison_running'];
    for (const [, code] of outcomes) expect(known).toContain(code);
  });
});

describe('a serial', () => {
  test('only grows, unless somebody says why', async () => {
    await house.broker.apply(having('serial: 7'));
    for (const control of ['serial: 6', 'serial: 7', null]) {
      const refused = await apply('olga', having(control));
      expect([control, ...said(refused)]).toEqual([control, 409, 'catalog_rollback']);
      expect(refused.body).toMatchObject({ serial_in_force: 7 });
    }
    expect((await inForce()).serial).toBe(7);
    expect(said(await apply('olga', having('serial: 8')))).toEqual([201, 'done']);
    const back = await apply('olga', having('serial: 5'), { allow_rollback: 'the new one is broken' });
    expect([back.status, back.body['serial']]).toEqual([201, 5]);
    expect((await told('catalog.guard_overridden')).at(-1)).toMatchObject({
      subject: 'dev-operators:olga',
      payload: { overridden: ['serial'], reason: 'the new one is broken', by: 'dev-operators:olga' },
    });
    expect(said(await apply('olga', having('serial: 6')))).toEqual([201, 'done']);
  });

  test('the very same files may be enforced in another way', async () => {
    const files = having('serial: 7');
    expect(said(await apply('olga', files, { enforce: 'report' }))).toEqual([201, 'done']);
    expect(said(await apply('olga', files))).toEqual([201, 'done']);
    expect(await inForce()).toMatchObject({ serial: 7, enforce: 'revoke' });
  });
});

describe('what takes two', () => {
  const forTwo = 'four_eyes: [apply, write_off, lift_kill]';

  test('a catalog: the first is told to wait, the same person is refused, another one puts it in force', async () => {
    // The one in force decides, so that nobody switches it off alone: this one took nobody else.
    expect(said(await apply('olga', having(forTwo)))).toEqual([201, 'done']);
    const next = having(null);
    const more = { commit: 'c0ffee' };
    const before = (await inForce()).revision;
    const first = await apply('olga', next, more);
    expect(first.status).toBe(202);
    const awaits = awaitingBody.parse(first.body);
    expect(awaits).toMatchObject({ operation: 'apply', asked_by: 'dev-operators:olga' });
    expect(Date.parse(awaits.expires_at) - Date.parse(awaits.asked_at)).toBe(900_000);
    expect(said(await apply('olga', next, more))).toEqual([409, 'second_person_needed']);
    expect((await inForce()).revision).toBe(before);
    // Anything else that is asked is another thing.
    expect(said(await apply('omar', next))).toEqual([202, 'awaits_second_person']);
    expect(said(await apply('omar', having(null), more))).toEqual([202, 'awaits_second_person']);
    expect(said(await operators.post(APPLY, { files: next, ...more }, 'operator', 'omar'))).toEqual([
      403,
      'operator_only',
    ]);

    const second = await apply('omar', next, more);
    expect([second.status, second.body['four_eyes'], second.body['applied_by']]).toEqual([
      201,
      [],
      'dev-operators:omar',
    ]);
    expect((await told('catalog.applied')).at(-1)).toMatchObject({
      subject: 'dev-operators:omar',
      payload: { first_person: 'dev-operators:olga', commit: 'c0ffee' },
    });
    expect((await told('operation.awaited'))[0]).toMatchObject({
      subject: 'dev-operators:olga',
      payload: { operation: 'apply', digest: awaits.digest, by: 'dev-operators:olga' },
    });
  });

  test('what was agreed on another catalog, or long ago, counts no more', async () => {
    await house.broker.apply(having(forTwo));
    const next = having(null);
    expect((await apply('olga', next)).status).toBe(202);
    await house.broker.apply(having(forTwo));
    expect((await apply('omar', next)).status).toBe(202);
    await house.onStore(`UPDATE mayfly.second_person SET expires_at = clock_timestamp() WHERE seconded_at IS NULL`);
    const late = await apply('olga', next);
    expect([late.status, late.body['asked_by']]).toEqual([202, 'dev-operators:olga']);
    expect((await apply('omar', next)).status).toBe(201);
  });

  test('lifting a kill', async () => {
    await house.broker.apply(having(forTwo));
    const raised = await operators.post('/v1/kill', { scope: 'agent', id: 'dev:agent-support', ...REASON });
    expect(raised.status).toBe(201);
    const path = `/v1/kill/${String(raised.body['id'])}`;
    const lift = async (who: string, body: object = REASON) =>
      await ask(house.url, 'DELETE', path, { token: await operators.token('operator', who), body });
    expect(said(await lift('olga'))).toEqual([202, 'awaits_second_person']);
    expect(said(await lift('olga'))).toEqual([409, 'second_person_needed']);
    expect(said(await lift('omar', { reason: 'another' }))).toEqual([202, 'awaits_second_person']);
    const open = house.sign({ workload: 'agent-support', purpose: 'answer.customer' });
    await expect(house.client('agent-support').openTask(await open)).rejects.toMatchObject({ code: 'killed' });
    const both = await Promise.all(['omar', 'oona'].map((who) => lift(who)));
    expect(both.map(({ status, body }) => [status, body['standing']])).toEqual([
      [200, false],
      [200, false],
    ]);
    const lifted = await told('kill.lifted');
    expect(lifted).toHaveLength(1);
    expect(lifted[0]?.payload).toMatchObject({ first_person: 'dev-operators:olga' });
    expect(
      await house.onStore(`SELECT FROM mayfly.second_person WHERE operation = 'lift_kill' AND seconded_at IS NOT NULL`),
    ).toHaveLength(1);
  });

  test('a write-off: of two second persons at once one carries it out', async () => {
    await house.broker.apply(having(forTwo));
    const { grants } = await grantsIn(house, 1);
    const id = grants[0]?.revocation?.id ?? '';
    await operators.post('/v1/targets/ledger-db/pause', REASON);
    await ask(house.url, 'DELETE', `/v1/grants/${grants[0]?.id ?? ''}`, { token: await operators.token('operator') });
    const writeOff = async (who: string) =>
      await operators.post(`/v1/revocations/${id}/write-off`, REASON, 'operator', who);
    expect(said(await writeOff('olga'))).toEqual([202, 'awaits_second_person']);
    expect((await operators.story(id)).revocation.state).toBe('due');
    const both = await Promise.all(['omar', 'oona'].map(writeOff));
    expect(both.map(said).toSorted(([a], [b]) => Number(a) - Number(b))).toEqual([
      [200, 'done'],
      [409, 'revocation_over'],
    ]);
    const events = await told('revocation.written_off');
    expect(events).toHaveLength(1);
    expect(events[0]?.payload).toMatchObject({ first_person: 'dev-operators:olga' });
    await operators.post('/v1/targets/ledger-db/resume');
  });

  test('of two first persons at once one is the first and the other the second', async () => {
    await house.broker.apply(having(forTwo));
    const raised = await operators.post('/v1/kill', { scope: 'entitlement', id: 'ledger-db/read-payments', ...REASON });
    const path = `/v1/kill/${String(raised.body['id'])}`;
    const both = await Promise.all(
      ['olga', 'omar'].map(
        async (who) =>
          await ask(house.url, 'DELETE', path, { token: await operators.token('operator', who), body: REASON }),
      ),
    );
    expect(both.map(({ status }) => status).toSorted((a, b) => a - b)).toEqual([200, 202]);
  });

  test('whoever has the store itself breaks the glass, and everybody hears it', { timeout: 90_000 }, async () => {
    await house.broker.apply(having(forTwo));
    const env = { MAYFLY_DATABASE_URL: house.store.runtimeUrl.reveal(), MAYFLY_PROVIDERS: 'postgres' };
    const to = mkdtempSync(join(tmpdir(), 'mayfly-second-'));
    for (const [path, text] of Object.entries(having(null))) {
      mkdirSync(dirname(join(to, path)), { recursive: true });
      writeFileSync(join(to, path), text);
    }
    const refused = await startCli(['catalog', 'apply', to], { env }).ended;
    expect([refused.code, refused.stderr]).toEqual([1, expect.stringContaining('takes a second person')]);
    const applied = await startCli(['catalog', 'apply', to, '--break-glass', 'nobody is there'], { env }).ended;
    expect([applied.code, applied.stdout]).toEqual([0, expect.stringMatching(/^Revision \d+ is active/)]);
    expect((await told('catalog.guard_overridden')).at(-1)).toMatchObject({
      payload: { overridden: ['four_eyes'], reason: 'nobody is there' },
    });
    expect((await told('catalog.applied')).at(-1)).toMatchObject({ payload: { break_glass: 'nobody is there' } });
    rmSync(to, { recursive: true });
  });
});
