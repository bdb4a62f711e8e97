import { afterAll, beforeAll, expect, test, vi } from 'vitest';
import { ApprovalPending, type PendingBody, ProblemError } from '../../src/client/index.ts';
import { approvalsPageBody, approvalView } from '../../src/http/approval-bodies.ts';
import { approvalFiles, Approving, PAYMENTS } from '../support/approving.ts';
import { type Ended, startCli } from '../support/cli.ts';
import { type House, startHouse } from '../support/house.ts';

let house: House;
let approving: Approving;

beforeAll(async () => {
  house = await startHouse();
  approving = new Approving(house);
  await house.broker.apply(approvalFiles(house.files));
});
afterAll(async () => {
  await house?.stop();
});

// Each command is a process of its own.
vi.setConfig({ testTimeout: 180_000 });

const environment = () => ({ env: { MAYFLY_DIR: house.devDir } });

async function mayfly(...args: string[]): Promise<Ended> {
  return await startCli(args, environment()).ended;
}

const run = (...more: string[]) =>
  startCli(
    ['run', '--purpose', 'reconcile.invoices', '--phase', 'execute', '--grant', PAYMENTS, ...more],
    environment(),
  );

test('the client waits for the approval, and has the credential', async () => {
  const task = await approving.open();
  const told: PendingBody[] = [];
  const issued = await house.client().issue(
    task,
    { entitlement: PAYMENTS },
    {
      onPending: (pending) => {
        told.push(pending);
        void approving.decide('fay', pending.approval.id, 'approve');
      },
    },
  );
  expect(told).toHaveLength(1);
  expect(told[0]?.approval.groups).toEqual(['finance']);
  expect(issued.grant).toMatchObject({ id: told[0]?.grant.id, state: 'active' });
  expect(issued.credential).toHaveProperty('password');
});

test('and is told when it was denied, was not decided in the time that it waits, or nobody wants it any more', async () => {
  const client = house.client();
  const task = await approving.open();
  const denied = client.issue(
    task,
    { entitlement: PAYMENTS },
    { onPending: ({ approval }) => void approving.decide('fay', approval.id, 'deny') },
  );
  await expect(denied).rejects.toSatisfy(
    (error) => error instanceof ProblemError && error.is('approval_over') && error.problem['state'] === 'denied',
  );
  const late: unknown = await client
    .issue(task, { entitlement: PAYMENTS }, { wait: 1 })
    .catch((error: unknown) => error);
  if (!(late instanceof ApprovalPending)) throw late;
  // It can be had later.
  await approving.decide('fay', late.pending.approval.id, 'approve');
  expect((await client.collect(late.pending.grant.id)).grant.state).toBe('active');
  const stop = new AbortController();
  const left = client.issue(
    task,
    { entitlement: PAYMENTS },
    { signal: stop.signal, onPending: () => stop.abort(new Error('enough')) },
  );
  await expect(left).rejects.toThrow('enough');
});

test('mayfly run says who may approve, waits, and runs; an approver sees all of it in the terminal', async () => {
  const running = run(
    '--env',
    '--',
    process.execPath,
    '-e',
    'console.log("ran as " + new URL(process.env.DATABASE_URL).username)',
  );
  const [, id = ''] = await running.says(
    /waiting until finance approves this, until \S+Z\. An approver runs: mayfly approvals approve (apr_\S+) /,
  );

  const listed = await mayfly('approvals', 'list', '--state', 'pending');
  expect(listed.stdout).toMatch(/^APPROVAL +STATE +BY +ENTITLEMENT +WORKLOAD +FOR +SECONDS +UNTIL\n/);
  expect(listed.stdout).toContain(id);
  const page = approvalsPageBody.parse(
    JSON.parse((await mayfly('approvals', 'list', '--json', '--limit', '1')).stdout),
  );
  expect(page.items.map((item) => item.id)).toEqual([id]);
  const shown = await mayfly('approvals', 'show', id);
  for (const line of [
    `${id}: PENDING, by finance`,
    `${PAYMENTS} for 120 seconds`,
    'Asked by dev:agent-recon on behalf of user:dev',
    'For reconcile.invoices, phase execute',
    'Permitted by payments-approved',
  ])
    expect(shown.stdout).toContain(line);

  const approved = await mayfly('approvals', 'approve', id, '--reason', 'seen by the test');
  expect([approved.code, approved.stdout]).toEqual([0, expect.stringContaining(`${id}: APPROVED`)]);
  expect(approved.stdout).toContain('approve by dev-operators:dev-operator: seen by the test');
  const ended = await running.ended;
  expect([ended.code, ended.stdout]).toEqual([0, expect.stringMatching(/^ran as mfy_/)]);

  const grant = approvalView.parse(JSON.parse((await mayfly('approvals', 'show', id, '--json')).stdout)).grant_id;
  expect((await mayfly('explain', grant)).stdout).toMatch(
    /Approval by finance: collected \(apr_\S+\)\n {2}\S+Z approve by dev-operators:dev-operator: seen by the test\n/,
  );
  const again = await mayfly('approvals', 'deny', id, '--reason', 'too late');
  expect([again.code, again.stderr]).toEqual([1, expect.stringContaining('409 approval_over')]);
});

test('mayfly run waits no longer than it shall, and runs nothing that was denied', async () => {
  const bounded = await run('--wait-approval', '1', '--', process.execPath, '-e', 'console.log("ran")').ended;
  expect([bounded.code, bounded.stdout]).toEqual([1, '']);
  expect(bounded.stderr).toContain('waits for its approval');
  const running = run('--', process.execPath, '-e', 'console.log("ran")');
  const [, id = ''] = await running.says(/mayfly approvals approve (apr_\S+) /);
  const denied = await mayfly('approvals', 'deny', id, '--reason', 'not today');
  expect(denied.stdout).toContain(`${id}: DENIED`);
  const ended = await running.ended;
  expect([ended.code, ended.stdout, ended.stderr]).toEqual([1, '', expect.stringContaining('approval_over')]);
  // Its task is over, and nothing waits any more.
  const waiting = await approving.listed('?state=pending');
  expect(waiting.filter(({ subject }) => subject === 'user:dev')).toEqual([]);
});
