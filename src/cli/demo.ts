import type { Command } from 'commander';
import pg from 'pg';
import { AgentKey, type Credential, type EventBody, MayflyClient } from '../client/index.ts';
import { readDevLock } from './dev/lock.ts';
import { askDevIssuer, brokerUrl, devFolder, readDevState } from './dev-state.ts';
import { addDevOptions, type DevOptions } from './dev.ts';
import { CliError } from './fail.ts';
import { note, say, styled, table } from './output.ts';
import { untilSignal } from './signals.ts';
import { signTaskRequest } from './task.ts';

const ENTITLEMENT = 'ledger-db/read-invoices';

export function addDemoCommand(program: Command): void {
  addDevOptions(program.command('demo'))
    .description('Play one agent’s whole story on real systems. Starts a dev broker for itself if none runs here.')
    .action(async (options: DevOptions) => {
      if (await isRunning()) return await playStory();
      const stopped = untilSignal();
      note('No dev broker runs in this folder: starting one for the length of the demo.');
      const { openDev } = await import('./dev-broker.ts');
      const dev = await openDev({ ...options, quiet: true });
      try {
        await Promise.race([playStory(), stopped.then(leave)]);
      } finally {
        await dev.stop();
      }
    });
}

/** A broker that answers at the address of a former one, but is another folder's, is not meant. */
async function isRunning(): Promise<boolean> {
  if (process.env['MAYFLY_URL'] === undefined && (await readDevLock(devFolder())) === undefined) return false;
  if (readDevState() === undefined) return false;
  const answer = await fetch(`${brokerUrl()}/healthz`).catch(() => undefined);
  return answer?.ok === true;
}

function leave(signal: NodeJS.Signals): never {
  throw new CliError(`${signal}: the demo was left before its end.`, signal === 'SIGINT' ? 130 : 143);
}

/** Every step says what should be seen, and the demo fails when it is not. */
async function playStory(): Promise<void> {
  const key = await AgentKey.make();
  const client = new MayflyClient({
    url: brokerUrl(),
    key,
    token: () => askDevIssuer({ kind: 'workload', subject: 'agent-recon', audience: brokerUrl() }),
  });

  step(
    'The orchestrator signs a task: reconcile invoices, for 30 minutes, with one entitlement, for this agent’s key.',
  );
  const wanted = {
    purpose: 'reconcile.invoices',
    phase: 'execute',
    entitlement: [ENTITLEMENT],
    workload: 'agent-recon',
    subject: 'user:dana',
    ttl: '1800',
  };
  const request = await signTaskRequest(wanted, key.thumbprint);
  seen(`${request.slice(0, 40)}… (${request.length} characters, signed with ES256)`);

  step('The agent opens the task with that request, its own workload token and a proof by its key.');
  const { task } = await client.openTask(request);
  check(task.state === 'active', `the task is ${task.state}`);
  seen(`${task.id} is ${task.state} until ${task.not_after}`);

  step(`It asks for ${ENTITLEMENT}. Policy decides now; a login is made for this grant alone.`);
  const { grant, credential } = await client.issue(task.id, { entitlement: ENTITLEMENT, ttl_seconds: 300 });
  seen(`${grant.id}: user ${text(credential, 'username')} until ${grant.deadline}`);
  seen(styled('dim', guaranteeOf(credential)));

  const agent = await connect(credential);
  try {
    step('It reads what it may read.');
    const { rows } = await agent.query<{ status: string; n: string; total: string }>(
      'SELECT status, count(*) AS n, sum(total_amount) AS total FROM billing.invoices GROUP BY status ORDER BY status',
    );
    check(rows.length > 0, 'the invoices are empty');
    for (const line of table(rows.map((row) => [row.status, row.n, row.total])).split('\n')) seen(line);

    step('It tries what it may not: Postgres itself refuses.');
    for (const statement of [
      'SELECT * FROM billing.payments',
      'DELETE FROM billing.invoices',
      'CREATE TABLE billing.mine ()',
      'SET ROLE mayfly_t_read_invoices',
    ]) {
      seen(`${statement}  →  ${await refusalOf(agent.query(statement))}`);
    }

    step('It completes the task, while its session is still open.');
    const gone = new Promise<string>((resolve) => agent.once('error', (error: Error) => resolve(error.message)));
    const { revocations } = await client.complete(task.id, { wait: 30 });
    for (const { id, target, state, evidence } of revocations) {
      check(state === 'contained' || state === 'clean', `${id} is ${state}`);
      seen(`${target}: ${state}. Seen in the target: ${JSON.stringify(evidence)}`);
    }
    check(revocations.length === 1, `${revocations.length} revocations instead of one`);
    seen(`the open session: ${await within(5_000, gone, 'it is still open')}`);
  } finally {
    await agent.end().catch(() => {});
  }

  step('It tries the credential once more.');
  seen(`a new login  →  ${await refusalOf(connect(credential))}`);
  const clean = await within(30_000, untilClean(client, grant.id), 'the role is not cleaned up');
  check(clean, 'the role is not cleaned up');

  step('What the evidence says, from the audit rows.');
  const events = await client.timeline(task.id);
  printTimeline(events);
  for (const needed of [
    'task.opened',
    'grant.intended',
    'grant.activated',
    'task.completed',
    'revocation.contained',
    'revocation.clean',
  ]) {
    check(
      events.some((event) => event.type === needed),
      `no event ${needed}`,
    );
  }
  say();
  say(styled('green', 'The story is as told: nothing of the credential is left.'));
}

let steps = 0;
function step(what: string): void {
  say();
  say(styled('bold', `${++steps}. ${what}`));
}

function seen(what: string): void {
  say(`   ${what}`);
}

function check(holds: boolean, otherwise: string): void {
  if (!holds) throw new CliError(`The demo is not as told: ${otherwise}.`);
}

async function connect(credential: Credential): Promise<pg.Client> {
  const client = new pg.Client({ connectionString: text(credential, 'url') });
  client.on('error', () => {});
  await client.connect();
  return client;
}

/** The SQLSTATE and words with which the target refused. Not refused: the demo fails. */
async function refusalOf(attempt: Promise<unknown>): Promise<string> {
  const error: unknown = await attempt.then(
    () => undefined,
    (refused: unknown) => refused,
  );
  if (!(error instanceof Error)) throw new CliError('The demo is not as told: what should be refused was allowed.');
  return `${error.message}${'code' in error ? ` (${String(error.code)})` : ''}`;
}

async function untilClean(client: MayflyClient, grantId: string): Promise<boolean> {
  for (;;) {
    const grant = await client.grant(grantId, { wait: 30 });
    if (grant.revocation?.state === 'clean') return true;
  }
}

async function within<T>(millis: number, work: Promise<T>, otherwise: string): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new CliError(`The demo is not as told: ${otherwise}.`)), millis);
  });
  try {
    return await Promise.race([work, late]);
  } finally {
    clearTimeout(timer);
  }
}

function printTimeline(events: readonly EventBody[]): void {
  let before: number | undefined;
  const rows = events.map((event) => {
    const at = Date.parse(event.ts);
    const since = before === undefined ? '' : `+${at - before} ms`;
    before = at;
    return [
      event.ts,
      since.padStart(9),
      event.type,
      event.resource === 'none' ? '' : event.resource,
      event.cause === 'none' ? '' : `(${event.cause})`,
    ];
  });
  for (const line of table(rows).split('\n')) seen(line);
}

function text(credential: Credential, name: string): string {
  const value = credential[name];
  return typeof value === 'string' ? value : '';
}

function guaranteeOf(credential: Credential): string {
  const guarantee = credential['guarantee'];
  return typeof guarantee === 'object' && guarantee !== null && 'says' in guarantee ? String(guarantee.says) : '';
}
