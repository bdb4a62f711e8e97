import { generateKeyPairSync } from 'node:crypto';
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest';
import { AgentKey, ProblemError } from '../../src/client/index.ts';
import { AWS_PROVIDERS, awsFiles, awsShaped, READ_BUCKET } from '../support/aws-shaped.ts';
import { type CliOptions, type CliProcess, mayflyArguments, startCli, tsxArguments } from '../support/cli.ts';
import { forge } from '../support/forge.ts';
import { type House, startHouse } from '../support/house.ts';

const DEV = ['--purpose', 'reconcile.invoices', '--grant', READ_BUCKET];

const aws = awsShaped();
let house: House;
/** Of one test: its cache among it, so that no test knows of another's tasks. */
let folder: string;
const started: CliProcess[] = [];

beforeAll(async () => {
  house = await startHouse({
    proofOfPossession: 'required',
    env: { MAYFLY_PROVIDERS: AWS_PROVIDERS },
    importPackage: async () => ({ provider: aws.provider }),
  });
  await house.broker.apply({ ...house.files, ...awsFiles });
});
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'mayfly-credential-process-test-'));
});
afterEach(() => {
  for (const { child } of started.splice(0)) child.kill('SIGKILL');
  rmSync(folder, { recursive: true, force: true });
});
afterAll(() => house?.stop());

function start(args: readonly string[], { env, ...options }: CliOptions = {}): CliProcess {
  const own = { MAYFLY_DIR: house.devDir, XDG_CACHE_HOME: join(folder, 'cache') };
  const cli = startCli(['credential-process', ...args], { ...options, env: { ...own, ...env } });
  started.push(cli);
  return cli;
}

async function printed(args: readonly string[], options: CliOptions = {}): Promise<Record<string, unknown>> {
  const { code, stdout, stderr } = await start(args, options).ended;
  expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
  return JSON.parse(stdout);
}

interface Left {
  readonly task: string;
  readonly task_state: string;
  readonly grant_state: string;
  readonly ended_by: string | null;
  readonly deadline: Date;
}

/** All grants, the latest last. */
async function grants(): Promise<Left[]> {
  return await house.onStore<Left & Record<string, unknown>>(
    `SELECT t.id AS task, t.state AS task_state, g.state AS grant_state, g.ended_by, r.due_at AS deadline
     FROM mayfly.grants g JOIN mayfly.tasks t ON t.id = g.task_id JOIN mayfly.revocations r ON r.grant_id = g.id
     ORDER BY g.created_at`,
  );
}

async function openedTasks(): Promise<number> {
  return (await house.onStore('SELECT 1 FROM mayfly.tasks')).length;
}

/** Away from dev mode: the files that a platform lays for a workload, its key among them. */
async function workloadFiles(change: (claims: Record<string, unknown>) => void = () => {}) {
  const jwk = generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey.export({ format: 'jwk' });
  const { thumbprint } = await AgentKey.from(jwk);
  const signed = await house.sign({ keyThumbprint: thumbprint, entitlements: [READ_BUCKET] });
  const write = (name: string, text: string) => {
    writeFileSync(join(folder, name), text);
    return join(folder, name);
  };
  const request = forge(house.devDir, 'orchestrator', signed, ({ claims }) => change(claims));
  return {
    thumbprint,
    request: write('request', request),
    env: {
      MAYFLY_DIR: join(folder, 'no-dev-mode-here'),
      MAYFLY_URL: house.url,
      MAYFLY_TOKEN_FILE: write('token', await house.token()),
      MAYFLY_KEY_FILE: write('key', JSON.stringify(jwk)),
    },
  };
}

test('one document is printed, with the end that the grant guarantees, and its task lives on', async () => {
  const { code, stdout, stderr } = await start([...DEV, '--grant-ttl', '120'], { env: { MAYFLY_LOG_LEVEL: 'debug' } })
    .ended;
  expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
  const document = JSON.parse(stdout);
  expect(stdout).toBe(`${JSON.stringify(document)}\n`);
  expect(document).toEqual({
    Version: 1,
    AccessKeyId: expect.stringMatching(/^ASIA/),
    SecretAccessKey: expect.any(String),
    SessionToken: expect.any(String),
    Expiration: expect.stringMatching(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/),
  });
  expect(aws.secrets).toEqual(expect.arrayContaining([document.SecretAccessKey, document.SessionToken]));
  const left = (await grants()).at(-1);
  expect(left).toMatchObject({ task_state: 'active', grant_state: 'active', ended_by: null });
  expect(Date.parse(document.Expiration)).toBe(Math.floor((left?.deadline.getTime() ?? 0) / 1000) * 1000);
});

test('an AWS SDK takes it from a profile, again and again, each grant in the same task', async () => {
  const words = [process.execPath, ...mayflyArguments, 'credential-process', ...DEV, '--grant-ttl', '60'].map(
    (word) => `"${word}"`,
  );
  const config = join(folder, 'config');
  writeFileSync(config, `[profile agent]\ncredential_process = ${words.join(' ')}\n`);
  const before = (await grants()).length;
  const sdk = startCli([...tsxArguments, fileURLToPath(new URL('../clients/aws-sdk.ts', import.meta.url))], {
    program: process.execPath,
    env: {
      MAYFLY_DIR: house.devDir,
      XDG_CACHE_HOME: join(folder, 'cache'),
      AWS_CONFIG_FILE: config,
      AWS_SHARED_CREDENTIALS_FILE: join(folder, 'none'),
      AWS_PROFILE: 'agent',
    },
    holdInput: true,
  });
  started.push(sdk);
  const ids = () => [...sdk.said().stdout.matchAll(/"accessKeyId":"(ASIA\w+)"/g)].map(([, id]) => id);
  // With a life below the SDK's five minutes each use asks again.
  await vi.waitFor(
    () => {
      sdk.child.stdin?.write('\n');
      expect(new Set(ids()).size, sdk.said().stdout).toBeGreaterThan(1);
    },
    { timeout: 60_000, interval: 500 },
  );
  sdk.endInput();
  await sdk.ended;
  const made = (await grants()).slice(before);
  expect(made.length).toBeGreaterThan(1);
  expect(new Set(made.map(({ task }) => task)).size).toBe(1);
});

describe('the task of an earlier call', () => {
  test('is used long after its signed request has expired, and ends what is asked for by that request', async () => {
    const { request, env } = await workloadFiles((claims) => {
      claims['exp'] = Number(claims['iat']) + 1;
    });
    const args = ['--task-request', request, '--grant', READ_BUCKET];
    const first = await printed(args, { env });
    const task = (await grants()).at(-1)?.task;
    const key = await AgentKey.from(JSON.parse(readFileSync(env.MAYFLY_KEY_FILE, 'utf8')));
    const agent = house.client('agent-recon', house.url, key);
    const presented = async () => {
      const error: unknown = await agent.openTask(readFileSync(request, 'utf8')).catch((why: unknown) => why);
      expect(error).toBeInstanceOf(ProblemError);
      expect(error).toMatchObject({ code: 'request_expired' });
    };
    await vi.waitFor(presented, { timeout: 60_000, interval: 200 });

    const second = await printed(args, { env });
    expect(second['AccessKeyId']).not.toBe(first['AccessKeyId']);
    expect((await grants()).at(-1)?.task).toBe(task);

    await agent.complete(`task_${task}`);
    const third = await start(args, { env }).ended;
    expect(third).toMatchObject({ code: 1, stdout: '', stderr: expect.stringContaining('401 request_expired') });
  });

  test('is left for that of a new request', async () => {
    const { request, env, thumbprint } = await workloadFiles();
    const args = ['--task-request', request, '--grant', READ_BUCKET];
    await printed(args, { env });
    const [earlier] = (await grants()).slice(-1);
    writeFileSync(request, await house.sign({ keyThumbprint: thumbprint, entitlements: [READ_BUCKET] }));
    await printed(args, { env });
    const [later] = (await grants()).slice(-1);
    expect(later?.task).not.toBe(earlier?.task);
  });

  test('that has ended is followed by another one in dev mode', async () => {
    await printed(DEV);
    const task = (await grants()).at(-1)?.task;
    const operator = { subject: 'olga', roles: ['operator' as const], audience: house.url };
    const token = async () => (await house.issuer.signOperatorToken(operator)).token;
    await house.client('', house.url, undefined, token).cancel(`task_${task}`);
    await printed(DEV);
    const [left] = (await grants()).slice(-1);
    expect(left).toMatchObject({ task_state: 'active' });
    expect(left?.task).not.toBe(task);
  });

  test('is known by ids alone, in a file of this user', async () => {
    const { SecretAccessKey, SessionToken } = await printed(DEV);
    const tasks = join(folder, 'cache', 'mayfly', 'tasks');
    const [file = '', ...others] = readdirSync(tasks);
    expect(others).toEqual([]);
    expect((statSync(tasks).mode & 0o777).toString(8)).toBe('700');
    expect((statSync(join(tasks, file)).mode & 0o777).toString(8)).toBe('600');
    const kept = JSON.parse(readFileSync(join(tasks, file), 'utf8'));
    expect(Object.keys(kept)).toEqual(['request', 'task']);
    expect(JSON.stringify(kept)).not.toContain(SecretAccessKey);
    expect(JSON.stringify(kept)).not.toContain(SessionToken);
    // What is not of our writing there stops nobody.
    writeFileSync(join(tasks, file), '{}');
    await printed(DEV);
  });

  test('that can not be noted is said, and the credential printed all the same', async () => {
    writeFileSync(join(folder, 'cache'), 'a file where a folder should be');
    const { code, stdout, stderr } = await start(DEV).ended;
    expect(code).toBe(0);
    expect(JSON.parse(stdout)).toMatchObject({ Version: 1 });
    expect(stderr).toContain('could not be noted for the next call');
  });
});

describe('nothing is printed, and nothing is left,', () => {
  test('of a credential that is not AWS’s', async () => {
    const args = ['--purpose', 'reconcile.invoices', '--grant', 'ledger-db/read-invoices'];
    const { code, stdout, stderr } = await start(args).ended;
    expect({ code, stdout, stderr }).toEqual({
      code: 1,
      stdout: '',
      stderr: '`mayfly credential-process` prints AWS credentials; this one is of another kind.\n',
    });
    expect((await grants()).at(-1)).toMatchObject({ ended_by: 'released', task_state: 'active' });
  });

  test('of one that nobody reads any more', async () => {
    const cli = start(DEV);
    cli.child.stdout?.destroy();
    const { code, stderr } = await cli.ended;
    expect(code).toBe(1);
    expect(stderr).toContain('could not be printed, and is released');
    expect((await grants()).at(-1)).toMatchObject({ ended_by: 'released' });
  });

  test('when policy says no, or what it needs is not there', async () => {
    const opened = await openedTasks();
    const made = (await grants()).length;
    const { request, env } = await workloadFiles();
    const ended = await Promise.all([
      start(['--workload', 'agent-support', '--purpose', 'answer.customer', '--grant', 'ledger-db/read-payments'])
        .ended,
      start(['--task-request', request, '--grant', READ_BUCKET], { env: { ...env, MAYFLY_KEY_FILE: request } }).ended,
      start(['--task-request', request, '--grant', READ_BUCKET], { env: { ...env, MAYFLY_URL: 'http://127.0.0.1:1' } })
        .ended,
      start(['--grant', READ_BUCKET]).ended,
      start([...DEV, '--grant-ttl', '5m']).ended,
    ]);
    expect(ended.map(({ code, stdout }) => [code, stdout])).toEqual([
      [1, ''],
      [1, ''],
      [1, ''],
      [2, ''],
      [2, ''],
    ]);
    expect(ended.map(({ stderr }) => stderr)).toEqual([
      expect.stringContaining('403 denied_by_policy'),
      expect.stringContaining('holds no P-256 private key'),
      expect.stringContaining('fetch failed'),
      expect.stringContaining('Give --task-request'),
      expect.stringContaining('--grant-ttl takes whole seconds'),
    ]);
    expect((await grants()).length).toBe(made);
    expect(await openedTasks()).toBe(opened + 1);
  });
});
