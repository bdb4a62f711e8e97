import { afterAll, beforeAll, expect, test, vi } from 'vitest';
import { killsPageBody, killView } from '../../src/http/kill-bodies.ts';
import { queuePageBody, storyBody, targetControlBody } from '../../src/http/queue-bodies.ts';
import { type Ended, startCli } from '../support/cli.ts';
import { type House, startHouse } from '../support/house.ts';
import { grantsIn, type Operators, operatorsOf } from '../support/operators.ts';

let house: House;
let operators: Operators;

beforeAll(async () => {
  house = await startHouse();
  operators = operatorsOf(house);
});
afterAll(async () => {
  await house?.stop();
});

// Each command is a process of its own.
vi.setConfig({ testTimeout: 180_000 });

async function mayfly(...args: string[]): Promise<Ended> {
  return await startCli(args, { env: { MAYFLY_DIR: house.devDir } }).ended;
}

test('an operator sees the queue, retries, writes off, pauses and resumes in the terminal', async () => {
  const empty = await mayfly('revocations');
  expect([empty.code, empty.stdout]).toEqual([0, 'The queue is empty.\n']);

  const { task, grants } = await grantsIn(house, 2);
  const [first = '', second = ''] = grants.map(({ revocation }) => revocation?.id);
  const paused = await mayfly('target', 'pause', 'ledger-db', '--reason', 'déménagement');
  expect(paused.stdout).toMatch(/^ledger-db is PAUSED since \S+ by dev-operators:dev-operator: déménagement\n$/);
  expect(paused.stderr).toContain('not taken back before their deadline');
  await house.client().cancel(task.id);

  const queue = await mayfly('revocations', '--target', 'ledger-db', '--state', 'due');
  expect(queue.stdout).toMatch(
    /^TARGET +DUE +WAITING +RUNNING +TO CLEAN +WRITTEN OFF +RESIDUAL +OVERDUE +OLDEST\nledger-db +2 +0 .* PAUSED\n/,
  );
  expect(queue.stdout).toMatch(
    /\nledger-db is PAUSED since \S+Z by dev-operators:dev-operator: déménagement \(deadlines: run\)\n/,
  );
  expect(queue.stdout).toContain(first);
  expect(queue.stdout).toContain('ENDED BY');
  const asJson = await mayfly('revocations', '--json', '--limit', '1');
  const page = queuePageBody.parse(JSON.parse(asJson.stdout));
  expect(page.items).toHaveLength(1);
  const rest = await mayfly('revocations', '--json', '--cursor', page.next_cursor ?? '');
  expect(queuePageBody.parse(JSON.parse(rest.stdout)).items).toHaveLength(1);

  const off = await mayfly('revocations', 'write-off', first, '--reason', '廃棄済み', '--json');
  expect(storyBody.parse(JSON.parse(off.stdout)).revocation).toMatchObject({ state: 'written_off' });
  const shown = await mayfly('revocations', 'show', first);
  expect(shown.stdout).toContain('WRITTEN OFF');
  expect(shown.stdout).toContain('Nobody says that the credential is gone.');
  const again = await mayfly('revocations', 'retry', first);
  expect(again.code).toBe(1);
  expect(again.stderr).toContain('409 revocation_over');

  const retried = await mayfly('revocations', 'retry', second);
  expect(retried.code).toBe(0);
  expect(retried.stdout).toContain('is PAUSED');
  const resumed = await mayfly('target', 'resume', 'ledger-db', '--json');
  expect(targetControlBody.parse(JSON.parse(resumed.stdout)).pause).toBeNull();
  await operators.until(second, 'clean');
});

test('an operator kills, lists and lifts in the terminal', async () => {
  const { task } = await grantsIn(house, 1);
  const kill = await mayfly('kill', 'task', task.id, '--reason', 'clé volée');
  expect([kill.code, kill.stdout]).toEqual([
    0,
    expect.stringMatching(/^kill_\S+: task task_\S+ is STOPPED since \S+ by dev-operators:dev-operator: clé volée\n$/),
  ]);
  expect(kill.stderr).toContain('It ended 1 tasks and 1 grants');
  const id = /^(kill_[^:]+):/.exec(kill.stdout)?.[1] ?? '';
  const all = await mayfly('kill', 'all', '--reason', '全部', '--json');
  expect(killView.parse(JSON.parse(all.stdout))).toMatchObject({ scope: 'all', subject: null, reason: '全部' });
  const listed = await mayfly('kill', 'list', '--standing');
  expect(listed.stdout).toMatch(
    /^KILL +SCOPE +SUBJECT +SINCE +BY +LIFTED +REASON\nkill_\S+ +all +- .*\nkill_\S+ +task +task_/,
  );
  const lifted = await mayfly('kill', 'lift', id, '--reason', 'new key');
  expect(lifted.stdout).toBe(`${id}: task ${task.id} is not stopped. Lifted by dev-operators:dev-operator.\n`);
  const page = killsPageBody.parse(JSON.parse((await mayfly('kill', 'list', '--json', '--limit', '1')).stdout));
  expect(page).toMatchObject({ items: [{ scope: 'all', standing: true }], next_cursor: expect.any(String) });
  expect((await mayfly('kill', 'lift', page.items[0]?.id ?? '', '--reason', 'over', '--json')).code).toBe(0);

  const unknown = await mayfly('kill', 'galaxy', '--reason', 'x');
  expect([unknown.code, unknown.stderr]).toEqual([1, expect.stringContaining('400 invalid_request')]);
  expect((await mayfly('kill', 'all')).stderr).toContain('--reason');
});

test('the queue is watched until somebody has seen enough', async () => {
  const watched = startCli(['revocations', '--watch'], { env: { MAYFLY_DIR: house.devDir } });
  await watched.says(/Z\nTARGET[^]*Z\nTARGET/);
  watched.child.kill('SIGINT');
  expect(await watched.ended).toMatchObject({ code: 0, stderr: '' });
});

test('what is forgotten or unknown is told in a sentence', async () => {
  const noReason = await mayfly('target', 'pause', 'ledger-db');
  expect([noReason.code, noReason.stderr]).toEqual([1, expect.stringContaining('--reason')]);
  const unknown = await mayfly('revocations', 'show', 'rev_1');
  expect([unknown.code, unknown.stderr]).toEqual([1, expect.stringContaining('404 not_found')]);
  const state = await mayfly('revocations', '--state', 'lost');
  expect([state.code, state.stderr]).toEqual([1, expect.stringContaining('400 invalid_request')]);
});
