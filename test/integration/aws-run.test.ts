import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from 'vitest';
import { AWS_PROVIDERS, awsFiles, awsShaped, READ_BUCKET } from '../support/aws-shaped.ts';
import { type CliOptions, type CliProcess, startCli, tsxArguments } from '../support/cli.ts';
import { type House, startHouse } from '../support/house.ts';

/** `mayfly run` with AWS keys, as the AWS SDK in its child sees them. */

const sdkProgram = fileURLToPath(new URL('../clients/aws-sdk.ts', import.meta.url));
const sdk = ['--', process.execPath, ...tsxArguments, sdkProgram, 'an-argument'];
const RUN = ['run', '--purpose', 'reconcile.invoices', '--grant', READ_BUCKET];

const aws = awsShaped();
let house: House;
let folder: string;
const started: CliProcess[] = [];

beforeAll(async () => {
  house = await startHouse({
    proofOfPossession: 'required',
    env: { MAYFLY_PROVIDERS: AWS_PROVIDERS },
    importPackage: async () => ({ provider: aws.provider }),
  });
  await house.broker.apply({ ...house.files, ...awsFiles });
  folder = mkdtempSync(join(tmpdir(), 'mayfly-aws-run-test-'));
});
afterEach(() => {
  aws.down = false;
  for (const { child } of started.splice(0)) child.kill('SIGKILL');
});
afterAll(async () => {
  await house?.stop();
  rmSync(folder, { recursive: true, force: true });
});

/** What the SDK in the child answered: keys, or why there are none. */
interface Heard {
  readonly accessKeyId?: string;
  readonly secretAccessKey?: string;
  readonly sessionToken?: string;
  readonly expiration?: string;
  readonly error?: string;
}

interface Running {
  readonly cli: CliProcess;
  readonly env: Readonly<Record<string, string>>;
  readonly argv: readonly string[];
  readonly ask: () => Promise<Heard>;
}

async function runSdk(args: readonly string[] = [], env: CliOptions['env'] = {}): Promise<Running> {
  const cli = startCli([...RUN, ...args, ...sdk], { env: { MAYFLY_DIR: house.devDir, ...env }, holdInput: true });
  started.push(cli);
  let read = 0;
  const next = async () => {
    const at = read++;
    const lines = () => cli.said().stdout.split('\n').slice(0, -1);
    await vi.waitFor(() => expect(lines().length, cli.said().stderr).toBeGreaterThan(at), { timeout: 60_000 });
    return JSON.parse(lines()[at] ?? '');
  };
  const { env: seen, argv } = await next();
  const ask = async () => {
    cli.child.stdin?.write('\n');
    return await next();
  };
  return { cli, env: seen, argv, ask };
}

/** As any other program on this machine may ask. */
async function askEndpoint({ env }: Running): Promise<{ status: number; body: unknown }> {
  const token = readFileSync(env['AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE'] ?? '', 'utf8');
  const response = await fetch(env['AWS_CONTAINER_CREDENTIALS_FULL_URI'] ?? '', { headers: { authorization: token } });
  return { status: response.status, body: await response.json() };
}

async function lastTask(): Promise<{ readonly id: string; readonly state: string; readonly grants: number }> {
  const [task] = await house.onStore<{ id: string; state: string; grants: number }>(
    `SELECT t.id, t.state, count(g)::int AS grants FROM mayfly.tasks t LEFT JOIN mayfly.grants g ON g.task_id = t.id
     GROUP BY t.id ORDER BY t.created_at DESC LIMIT 1`,
  );
  if (task === undefined) throw new Error('no task');
  return task;
}

/** Parents have much that a default chain would rather take. */
function misleading(): Record<string, string> {
  const home = mkdtempSync(join(folder, 'home-'));
  mkdirSync(join(home, '.aws'));
  const profile = '[default]\naws_access_key_id = AKIAFILE\naws_secret_access_key = file\nregion = us-west-1\n';
  writeFileSync(join(home, '.aws', 'credentials'), profile);
  writeFileSync(join(home, '.aws', 'config'), profile);
  writeFileSync(join(home, '.boto'), '[Credentials]\naws_access_key_id = AKIABOTO\naws_secret_access_key = boto\n');
  return {
    HOME: home,
    AWS_ACCESS_KEY_ID: 'AKIAPARENT',
    AWS_SECRET_ACCESS_KEY: 'parent',
    AWS_SESSION_TOKEN: 'parent',
    AWS_PROFILE: 'default',
    AWS_DEFAULT_PROFILE: 'default',
    AWS_SHARED_CREDENTIALS_FILE: join(home, '.aws', 'credentials'),
    AWS_CONFIG_FILE: join(home, '.aws', 'config'),
    AWS_CONTAINER_CREDENTIALS_RELATIVE_URI: '/v2/credentials/x',
    AWS_CONTAINER_AUTHORIZATION_TOKEN: 'parent',
    AWS_WEB_IDENTITY_TOKEN_FILE: join(home, 'web-identity'),
    AWS_ROLE_ARN: 'arn:aws:iam::123456789012:role/parent',
    AWS_BEARER_TOKEN_BEDROCK: 'parent',
    AWS_REGION: 'us-west-1',
    AWS_CA_BUNDLE: '/etc/ssl/cert.pem',
  };
}

describe('what the command gets', () => {
  test('is an endpoint that its SDK asks, whatever its parent would have led it to, and no secret', async () => {
    const running = await runSdk([], { ...misleading(), MAYFLY_LOG_LEVEL: 'debug' });
    const { cli, env, argv, ask } = running;
    const ours = Object.fromEntries(Object.entries(env).filter(([name]) => /^(AWS_|BOTO_|MAYFLY_)/.test(name)));
    const none = ours['AWS_CONFIG_FILE'] ?? '';
    expect(ours).toEqual({
      AWS_CONTAINER_CREDENTIALS_FULL_URI: expect.stringMatching(/^http:\/\/127\.0\.0\.1:\d+\/[\w-]{22}$/),
      AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE: expect.stringMatching(/\/aws-token$/),
      AWS_CONFIG_FILE: none,
      AWS_SHARED_CREDENTIALS_FILE: none,
      BOTO_CONFIG: none,
      AWS_EC2_METADATA_DISABLED: 'true',
      AWS_REGION: 'eu-central-1',
      AWS_DEFAULT_REGION: 'eu-central-1',
      AWS_CA_BUNDLE: '/etc/ssl/cert.pem',
    });
    expect(readFileSync(none, 'utf8')).toBe('');
    const tokenFile = ours['AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE'] ?? '';
    expect((statSync(tokenFile).mode & 0o777).toString(8)).toBe('600');
    expect((statSync(dirname(tokenFile)).mode & 0o777).toString(8)).toBe('700');

    const keys = await ask();
    expect(keys).toMatchObject({ accessKeyId: expect.stringMatching(/^ASIA/), sessionToken: expect.any(String) });
    const secrets = [...aws.secrets, readFileSync(tokenFile, 'utf8')];
    expect(secrets).toContain(keys.secretAccessKey);
    const shown = JSON.stringify([env, argv, cli.said().stderr]);
    expect(secrets.filter((secret) => shown.includes(secret))).toEqual([]);

    cli.endInput();
    expect(await cli.ended).toMatchObject({ code: 0, stderr: '' });
    expect(existsSync(dirname(tokenFile))).toBe(false);
    await expect(fetch(env['AWS_CONTAINER_CREDENTIALS_FULL_URI'] ?? '')).rejects.toThrow('fetch failed');
    expect(await lastTask()).toMatchObject({ state: 'completed', grants: 1 });
  });

  test('is the keys in variables too, with --env, and the parent’s region where the credential has none', async () => {
    aws.region = undefined;
    try {
      const { cli, env, ask } = await runSdk(['--env'], misleading());
      const keys = await ask();
      expect(env).toMatchObject({
        AWS_ACCESS_KEY_ID: keys.accessKeyId,
        AWS_SECRET_ACCESS_KEY: keys.secretAccessKey,
        AWS_SESSION_TOKEN: keys.sessionToken,
        AWS_CREDENTIAL_EXPIRATION: expect.stringMatching(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/),
        AWS_REGION: 'us-west-1',
      });
      expect(aws.secrets).toContain(keys.secretAccessKey);
      cli.endInput();
      expect(await cli.ended).toMatchObject({ code: 0, stderr: '' });
    } finally {
      aws.region = 'eu-central-1';
    }
  });
});

describe('while the command lives', () => {
  test('its SDK has the renewed keys; the ones before while a renewal is late; and none that are dead', async () => {
    const running = await runSdk(['--grant-ttl', '10']);
    const { cli, ask } = running;
    const first = await ask();
    // The grant's deadline, not the end that STS gives to every session.
    expect(Date.parse(first.expiration ?? '') - Date.now()).toBeLessThan(11_000);
    const renewed = async (from: Heard) => {
      let heard = from;
      const look = async () => {
        heard = await ask();
        expect(heard.accessKeyId).not.toBe(from.accessKeyId);
      };
      await vi.waitFor(look, { timeout: 60_000, interval: 100 });
      return heard;
    };
    const second = await renewed(first);
    expect(aws.secrets).toContain(second.secretAccessKey);

    aws.down = true;
    await cli.says(/could not be renewed; trying again/);
    expect(await ask()).toEqual(second);
    aws.down = false;
    const third = await renewed(second);
    expect(aws.secrets).toContain(third.secretAccessKey);

    aws.down = true;
    await cli.says(/could not be renewed and ends at/);
    const ended = { Code: 'ExpiredToken', Message: expect.any(String) };
    expect(await askEndpoint(running)).toEqual({ status: 403, body: ended });
    expect((await ask()).error).toContain('CredentialsProviderError');
    cli.endInput();
    expect(await cli.ended).toMatchObject({ code: 0 });
  });

  test('and its task is ended by others, the endpoint says so before the deadline', async () => {
    const running = await runSdk(['--grant-ttl', '10']);
    expect(await running.ask()).toHaveProperty('accessKeyId');
    const { id } = await lastTask();
    const operator = { subject: 'olga', roles: ['operator' as const], audience: house.url };
    const token = async () => (await house.issuer.signOperatorToken(operator)).token;
    await house.client('', house.url, undefined, token).cancel(`task_${id}`, { wait: 30 });
    await running.cli.says(/could not be renewed and ends at .*409 (grant|task)_ended/);
    expect(await askEndpoint(running)).toMatchObject({ status: 403 });
    running.cli.endInput();
    expect(await running.cli.ended).toMatchObject({ code: 0 });
  });

  test('and `mayfly run` is killed, the endpoint is gone with its token', async () => {
    const { cli, env, ask } = await runSdk(['--grant-ttl', '5']);
    await ask();
    cli.child.kill('SIGKILL');
    await cli.ended;
    await expect(fetch(env['AWS_CONTAINER_CREDENTIALS_FULL_URI'] ?? '')).rejects.toThrow('fetch failed');
    const tokenFile = env['AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE'] ?? '';
    await vi.waitFor(() => expect(existsSync(tokenFile)).toBe(false), { timeout: 60_000 });
    cli.endInput();
  });
});
