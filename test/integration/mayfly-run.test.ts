import { once } from 'node:events';
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { text } from 'node:stream/consumers';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { readDeliveryKey, seal } from '../../src/identity/delivery-key.ts';
import { type CliOptions, type CliProcess, type Ended, mayflyArguments, startCli } from '../support/cli.ts';
import { freePort } from '../support/free-port.ts';
import { type House, startHouse } from '../support/house.ts';

let house: House;
let folder: string;
const started: CliProcess[] = [];

beforeAll(async () => {
  house = await startHouse();
  folder = mkdtempSync(join(tmpdir(), 'mayfly-run-test-'));
});
afterAll(async () => {
  for (const { child } of started) child.kill('SIGKILL');
  await house?.stop();
  rmSync(folder, { recursive: true, force: true });
});

const READ = ['--purpose', 'reconcile.invoices', '--grant', 'ledger-db/read-invoices'];

function start(args: readonly string[], options: CliOptions = {}): CliProcess {
  const cli = startCli(args, { ...options, env: { MAYFLY_DIR: house.devDir, ...options.env } });
  started.push(cli);
  return cli;
}

/** `mayfly run` with what every run needs. */
function run(args: readonly string[], options: CliOptions = {}): Promise<Ended> {
  return start(['run', ...READ, ...args], options).ended;
}

/** A command that runs this module code. `pg` takes host, user and password as libpq does. */
function node(code: string): string[] {
  // Its `pg` says of its way to read password files that it will go.
  return ['--', process.execPath, '--no-deprecation', '--input-type=module', '-e', `import pg from 'pg';\n${code}`];
}

interface Left {
  readonly state: string;
  readonly ended_by: string | null;
  readonly grant_state: string;
  readonly roles: number;
}

/** What store and target hold of the task that a role was made for. */
async function leftOf(role: string): Promise<Left | undefined> {
  const [found] = await house.onStore<Omit<Left, 'roles'>>(
    `SELECT t.state, t.ended_by, g.state AS grant_state FROM mayfly.grants g JOIN mayfly.tasks t ON t.id = g.task_id
     WHERE g.handle = $1`,
    [role],
  );
  const roles = await house.onTarget('SELECT 1 FROM pg_roles WHERE rolname = $1', [role]);
  return found && { ...found, roles: roles.length };
}

async function tasks(): Promise<string[]> {
  const rows = await house.onStore<{ id: string; state: string }>('SELECT id, state FROM mayfly.tasks ORDER BY id');
  return rows.map(({ id, state }) => `${id} ${state}`);
}

const completed = { state: 'completed', ended_by: 'completed', grant_state: 'revoked', roles: 0 };
const cancelled = { state: 'cancelled', ended_by: 'cancelled', grant_state: 'revoked', roles: 0 };

describe('what the command gets', () => {
  const look = `
    import { statSync } from 'node:fs';
    import { dirname } from 'node:path';
    const client = new pg.Client();
    await client.connect();
    const { rows } = await client.query('SELECT session_user AS who, count(*)::int AS n FROM invoices');
    await client.end();
    const mode = (path) => (statSync(path).mode & 0o777).toString(8);
    const file = process.env.PGPASSFILE;
    console.log(JSON.stringify({ ...rows[0], env: process.env, args: process.argv.slice(1), file: mode(file), folder: mode(dirname(file)) }));`;

  test('is the credential in libpq’s way, a password file that goes with it, and nothing of ours', async () => {
    const { code, stdout, stderr } = await run([...node(look), 'one', '--', '--grant', 'x'], {
      env: { MAYFLY_LOG_LEVEL: 'debug', PGPASSWORD: 'another', PGSERVICE: 'another', PGOPTIONS: '-c x=y', LANG: 'C' },
    });
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    const seen = JSON.parse(stdout);
    expect(seen).toMatchObject({ n: 100, file: '600', folder: '700', args: ['one', '--', '--grant', 'x'] });
    expect(seen.env).toMatchObject({
      PGHOST: '127.0.0.1',
      PGPORT: String(house.targetServer.port),
      PGDATABASE: house.targetDatabase,
      PGUSER: seen.who,
      LANG: 'C',
    });
    const names = Object.keys(seen.env).filter((name) => /^(MAYFLY_|PG|DATABASE_URL)/.test(name));
    expect(names.sort()).toEqual(['PGDATABASE', 'PGHOST', 'PGPASSFILE', 'PGPORT', 'PGSSLMODE', 'PGUSER']);
    expect(existsSync(dirname(seen.env.PGPASSFILE))).toBe(false);
    expect(await leftOf(seen.who)).toEqual(completed);
  });

  test('is no descriptor of our caller beyond the three standard streams', async () => {
    // The shell holds on to /proc/$$/fd of its own: `ls` alone would show the descriptor that it reads with.
    const command = ['run', ...READ, '--', 'sh', '-c', 'ls /proc/$$/fd; true'];
    const script = 'exec 7</etc/passwd 9</etc/passwd 50</etc/passwd; exec "$0" "$@"';
    const { code, stdout, stderr } = await start(['-c', script, process.execPath, ...mayflyArguments, ...command], {
      program: 'bash',
    }).ended;
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    expect(stdout.trim().split('\n')).toEqual(['0', '1', '2']);
  });

  test('is the password in the environment too, with --env', async () => {
    const { code, stdout } = await run([
      '--env',
      ...node(`
        const logins = [{ connectionString: process.env.DATABASE_URL }, { password: process.env.PGPASSWORD }];
        for (const login of logins) {
          const client = new pg.Client(login);
          await client.connect();
          console.log((await client.query('SELECT session_user AS who')).rows[0].who);
          await client.end();
        }`),
    ]);
    expect(code).toBe(0);
    const [first = '', second] = stdout.trim().split('\n');
    expect(first).toMatch(/^mfy_/);
    expect(second).toBe(first);
  });
});

describe('how it ends', () => {
  test('with the status of the command, whose task is completed all the same', async () => {
    const { code, stdout } = await run(['--', 'sh', '-c', 'echo "$PGUSER"; exit 7']);
    expect(code).toBe(7);
    expect(await leftOf(stdout.trim())).toEqual(completed);
  });

  test('by the signal that ended the command', async () => {
    const { code, signal, stdout } = await run(['--', 'sh', '-c', 'echo "$PGUSER"; kill -TERM $$']);
    expect([code, signal]).toEqual([null, 'SIGTERM']);
    expect(await leftOf(stdout.trim())).toEqual(completed);
  });

  test('not by one that would leave our memory, with tokens in it, on disk', async () => {
    const { code, signal } = await run(['--', 'sh', '-c', 'kill -QUIT $$']);
    expect([code, signal]).toEqual([131, null]);
  });

  test('only when the command does: signals are passed on to it', async () => {
    const signals = ['SIGUSR1', 'SIGUSR2', 'SIGHUP', 'SIGQUIT', 'SIGINT', 'SIGTERM'] as const;
    const cli = start([
      'run',
      ...READ,
      ...node(`
        for (const signal of ${JSON.stringify(signals)}) process.on(signal, () => {
          console.log('got', signal);
          if (signal === 'SIGTERM') process.exit(3);
        });
        setInterval(() => {}, 1000);
        console.log('ready', process.env.PGUSER);`),
    ]);
    const [, role = ''] = await cli.says(/ready (\S+)/);
    for (const signal of signals) {
      cli.child.kill(signal);
      await cli.says(new RegExp(`got ${signal}`));
    }
    expect(await cli.ended).toMatchObject({ code: 3, signal: null, stderr: '' });
    expect(await leftOf(role)).toEqual(completed);
  });

  test('with 127 where there is no such command and 126 where it can not be run, and the task is cancelled', async () => {
    const before = await tasks();
    const [missing, plain] = await Promise.all([run(['--', 'no-such-command-here', 'x']), run(['--', '/etc/passwd'])]);
    expect(missing).toMatchObject({ code: 127, stdout: '', stderr: 'no-such-command-here: no such command.\n' });
    const why = '/etc/passwd could not be started: it is not executable.\n';
    expect(plain).toMatchObject({ code: 126, stdout: '', stderr: why });
    const made = (await tasks()).filter((task) => !before.includes(task));
    expect(made.map((task) => task.split(' ')[1])).toEqual(['cancelled', 'cancelled']);
    const handles = await house.onStore<{ handle: string }>(
      'SELECT handle FROM mayfly.grants WHERE task_id = ANY($1)',
      [made.map((task) => task.split(' ')[0])],
    );
    expect(handles).toHaveLength(2);
    for (const { handle } of handles) expect(await leftOf(handle)).toEqual(cancelled);
  });

  test('when policy says no: with the reason, and nothing is left', async () => {
    const before = await tasks();
    const { code, stderr, stdout } = await start([
      'run',
      ...['--workload', 'agent-support', '--purpose', 'answer.customer', '--grant', 'ledger-db/read-payments'],
      ...['--', 'echo', 'it ran'],
    ]).ended;
    expect({ code, stdout }).toEqual({ code: 1, stdout: '' });
    expect(stderr).toContain('403 denied_by_policy');
    const made = (await tasks()).filter((task) => !before.includes(task));
    expect(made.map((task) => task.split(' ')[1])).toEqual(['cancelled']);
  });
});

// At once: they mostly wait for deadlines.
describe.concurrent('while the command lives', () => {
  test('the credential is renewed: the command can log in after its first deadline', async () => {
    const { code, stdout, stderr } = await run([
      ...['--grant-ttl', '10'],
      ...node(`
        const ask = async (text, values) => {
          const client = new pg.Client();
          await client.connect();
          const { rows } = await client.query(text, values);
          await client.end();
          return rows[0];
        };
        const { until } = await ask('SELECT rolvaliduntil AS until FROM pg_roles WHERE rolname = session_user');
        // So late that one renewal alone would not do.
        const later = "SELECT clock_timestamp() > $1::timestamptz + interval '2 seconds' AS past";
        for (let past = false; !past; ) ({ past } = await ask(later, [until]));
        console.log(process.env.PGUSER);`),
    ]);
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    expect(await leftOf(stdout.trim())).toEqual(completed);
  });

  test('and its task is ended by others, the command keeps its status and is told why', async () => {
    const cli = start(['run', ...READ, '--grant-ttl', '8', '--', 'sh', '-c', 'echo "user $PGUSER"; cat; exit 5'], {
      holdInput: true,
    });
    const [, role = ''] = await cli.says(/user (\S+)/);
    const [task] = await house.onStore<{ id: string }>('SELECT task_id AS id FROM mayfly.grants WHERE handle = $1', [
      role,
    ]);
    // Its agent's key dies with the command: only an operator can do this.
    const operator = { subject: 'olga', roles: ['operator' as const], audience: house.url };
    const token = async () => (await house.issuer.signOperatorToken(operator)).token;
    await house.client('', house.url, undefined, token).cancel(`task_${task?.id}`, { wait: 30 });
    await cli.says(/could not be renewed and ends at .*409 grant_ended/);
    cli.endInput();
    const { code, stderr } = await cli.ended;
    expect(code).toBe(5);
    expect(stderr.trim().split('\n')).toHaveLength(1);
    expect(await leftOf(role)).toEqual(cancelled);
  });

  test('killing `mayfly run` itself with -9 leaves nothing beyond the deadline', async () => {
    const cli = start(['run', ...READ, '--grant-ttl', '2', '--', 'sh', '-c', 'echo "user $PGUSER $PGPASSFILE"; cat'], {
      holdInput: true,
    });
    const [, role = '', file = ''] = await cli.says(/user (\S+) (\S+)/);
    expect(existsSync(file)).toBe(true);
    cli.child.kill('SIGKILL');
    expect(await cli.ended).toMatchObject({ signal: 'SIGKILL' });
    await vi.waitFor(() => expect(existsSync(dirname(file))).toBe(false), { timeout: 60_000 });
    await vi.waitFor(async () => expect(await leftOf(role)).toMatchObject({ grant_state: 'revoked', roles: 0 }), {
      timeout: 60_000,
      interval: 100,
    });
    const [grant] = await house.onStore('SELECT ended_by FROM mayfly.grants WHERE handle = $1', [role]);
    expect(grant).toEqual({ ended_by: 'expired' });
    cli.endInput();
  });
});

describe('away from dev mode', () => {
  const production = (env: Record<string, string> = {}): CliOptions => ({
    env: { MAYFLY_DIR: join(folder, 'no-dev-mode-here'), MAYFLY_URL: house.url, ...env },
  });
  const command = ['--grant', 'ledger-db/read-invoices', '--', 'sh', '-c', 'echo "$PGUSER"'];

  test('the signed request comes from a file or a URL, and the workload’s own token from a file', async () => {
    const requestFile = join(folder, 'request');
    const tokenFile = join(folder, 'token');
    writeFileSync(requestFile, `${await house.sign()}\n`);
    writeFileSync(tokenFile, `${await house.token()}\n`);
    const other = await house.sign();
    const server = createServer((_request, response) => response.end(`${other}\n`)).listen(
      await freePort(),
      '127.0.0.1',
    );
    await once(server, 'listening');
    const address = server.address();
    const port = typeof address === 'object' && address !== null ? address.port : 0;
    try {
      const options = production({ MAYFLY_TOKEN_FILE: tokenFile });
      const ended = await Promise.all(
        [requestFile, `http://127.0.0.1:${port}/request`].map(
          (from) => start(['run', '--task-request', from, ...command], options).ended,
        ),
      );
      for (const { code, stdout, stderr } of ended) {
        expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
        expect(await leftOf(stdout.trim())).toEqual(completed);
      }
    } finally {
      server.close();
    }
  });

  test('is refused what dev mode alone may do, and what is not there is named', async () => {
    const before = await tasks();
    const refused = async (args: string[], options: CliOptions) => {
      const { code, stderr, stdout } = await start(['run', ...args, ...command], options).ended;
      return { code, stderr: stderr.trim(), stdout };
    };
    const tokenFile = join(folder, 'no-such-token');
    const requestFile = join(folder, 'some-request');
    writeFileSync(requestFile, await house.sign());
    const answers = await Promise.all([
      refused(['--task-request', requestFile], production()),
      refused([], production()),
      refused(['--purpose', 'reconcile.invoices'], production()),
      refused(['--purpose', 'x', '--task-request', requestFile], production({ MAYFLY_TOKEN_FILE: tokenFile })),
      refused(['--task-request', requestFile], production({ MAYFLY_TOKEN_FILE: tokenFile })),
      refused(['--task-request', `${requestFile}.not`], production({ MAYFLY_TOKEN_FILE: tokenFile })),
      refused(['--purpose', 'reconcile.invoices', '--grant-ttl', '5m'], production()),
    ]);
    expect(answers).toEqual([
      { code: 2, stdout: '', stderr: expect.stringContaining('set MAYFLY_TOKEN_FILE') },
      { code: 2, stdout: '', stderr: 'Give --task-request FILE|URL, or in dev mode --purpose.' },
      { code: 1, stdout: '', stderr: expect.stringContaining('No dev broker was started in this folder') },
      { code: 2, stdout: '', stderr: expect.stringContaining('not both') },
      {
        code: 1,
        stdout: '',
        stderr: expect.stringMatching(/MAYFLY_TOKEN_FILE: .*no-such-token can not be read \(ENOENT\)/),
      },
      {
        code: 1,
        stdout: '',
        stderr: expect.stringMatching(/--task-request: .*some-request.not can not be read \(ENOENT\)/),
      },
      { code: 2, stdout: '', stderr: '--grant-ttl takes whole seconds from 1 to 86400, not "5m".' },
    ]);
    expect(await tasks()).toEqual(before);
  });
});

test('a signal before the command is started cancels the task that was opened, and the command never runs', async () => {
  const asked: string[] = [];
  let issue = async () => {};
  // A broker of paper, which makes the credential only when it is told to.
  const broker = createServer((request, response) => {
    const call = `${request.method} ${request.url?.split('?')[0]}`;
    asked.push(call);
    const answer = (body: object) =>
      response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify(body));
    const now = Date.now();
    const times = { created_at: new Date(now).toISOString(), deadline: new Date(now + 60_000).toISOString() };
    if (call === 'POST /v1/tasks') answer({ task: { id: 'task_1' } });
    else if (call === 'POST /v1/tasks/task_1/cancel') answer({ task: { id: 'task_1' }, revocations: [] });
    else
      issue = async () => {
        const { delivery } = Object(JSON.parse(await text(request)));
        const told = { grantId: 'grt_1', expiresAt: new Date(now) };
        const credential = await seal(readDeliveryKey(delivery.jwk), { username: 'u', database: 'd' }, told);
        answer({ grant: { id: 'grt_1', ...times }, credential });
      };
  }).listen(await freePort(), '127.0.0.1');
  await once(broker, 'listening');
  try {
    const address = broker.address();
    const url = `http://127.0.0.1:${typeof address === 'object' && address !== null ? address.port : 0}`;
    const cli = start(['run', ...READ, '--', 'echo', 'it ran'], { env: { MAYFLY_URL: url } });
    await vi.waitFor(() => expect(asked).toContain('POST /v1/tasks/task_1/grants'), { timeout: 60_000 });
    cli.child.kill('SIGTERM');
    await cli.says(/SIGTERM/);
    await issue();
    expect(await cli.ended).toMatchObject({ signal: 'SIGTERM', stdout: '' });
    expect(asked).toEqual(['POST /v1/tasks', 'POST /v1/tasks/task_1/grants', 'POST /v1/tasks/task_1/cancel']);
  } finally {
    broker.close();
    broker.closeAllConnections();
  }
});
