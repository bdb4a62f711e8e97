import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { type AwsHouse, BUCKET, furnish } from '../contract/aws-sts-fixture.ts';
import { accountOf, type AwsKeys, tryToRead } from '../support/aws-account.ts';
import { startAwsStandIn } from '../support/aws-stand-in/server.ts';
import { startCli, tsxArguments } from '../support/cli.ts';
import { type House, startHouse } from '../support/house.ts';
import { findMiniStack, startMiniStack } from '../support/ministack.ts';

/** The whole way of AWS credentials, through the broker: issued, used, ended early, ended by themselves, lost in a crash. */

const MARCH = 'aws/read-march';
const sdkProgram = fileURLToPath(new URL('../clients/aws-sdk.ts', import.meta.url));
const ministack = await findMiniStack();

let house: House;
let aws: AwsHouse;
let stopAws: () => Promise<unknown>;

beforeAll(async () => {
  if (ministack === undefined) {
    const standIn = await startAwsStandIn();
    stopAws = () => standIn.stop();
    aws = await furnish(standIn);
  } else {
    const server = await startMiniStack(ministack);
    stopAws = () => server.stop();
    aws = await furnish(accountOf(server));
  }
  house = await startHouse({ inProcess: false, env: { MAYFLY_PROVIDERS: 'postgres,aws-sts' } });
  const secrets = join(house.secretsDir, 'aws');
  mkdirSync(secrets);
  writeFileSync(join(secrets, 'key'), aws.broker.accessKeyId);
  writeFileSync(join(secrets, 'secret'), aws.broker.secretAccessKey);
  writeFileSync(join(secrets, 'session'), aws.broker.sessionToken ?? '');
  await house.broker.apply({ ...house.files, ...catalogFiles() });
}, 180_000);
afterAll(async () => {
  await house?.stop();
  await stopAws?.();
});

function catalogFiles(): Record<string, string> {
  const { account, roles } = aws;
  const connection = {
    account_id: account.id,
    region: account.region,
    roles: [{ arn: roles[0] }],
    broker: { access_key_id: 'file:key', secret_access_key: 'file:secret', session_token: 'file:session' },
    endpoints: { sts: account.endpoint, iam: account.endpoint, s3: account.endpoint },
    probe: { action: 's3:ListBucket', bucket: BUCKET },
  };
  const target = {
    name: 'aws',
    provider: 'aws-sts',
    connection,
    environment: 'demo',
    owner: 'finance',
    sensitivity: 'internal',
  };
  const statements = [{ Effect: 'Allow', Action: 's3:GetObject', Resource: `arn:aws:s3:::${BUCKET}/march` }];
  const entitlement = {
    ...{ name: MARCH, target: 'aws', sensitivity: 'internal', actions: ['read'], max_ttl_seconds: 900 },
    provider: { role: roles[0], statements },
  };
  return {
    'targets/aws.yaml': JSON.stringify(target),
    'entitlements/aws.yaml': JSON.stringify([entitlement]),
    'policies/aws.cedar': `@id("aws") permit (principal, action, resource == Mayfly::Entitlement::"${MARCH}");`,
  };
}

async function openTask(url = house.url): Promise<string> {
  const { task } = await house.client('agent-recon', url).openTask(await house.sign({ entitlements: [MARCH] }));
  return task.id;
}

async function issue(task: string, ttl = 600) {
  const issued = await house.client().issue(task, { entitlement: MARCH, ttl_seconds: ttl });
  return { id: issued.grant.id, deadline: Date.parse(issued.grant.deadline), keys: keysOf(issued.credential), issued };
}

function keysOf(credential: Readonly<Record<string, unknown>>): AwsKeys {
  const { access_key_id: id, secret_access_key: secret, session_token: token } = credential;
  return { accessKeyId: String(id), secretAccessKey: String(secret), sessionToken: String(token) };
}

async function reads(keys: AwsKeys): Promise<string> {
  return await tryToRead(aws.account, keys, BUCKET, 'march');
}

async function revocationOf(grant: string) {
  const { revocation } = await house.client().grant(grant);
  return revocation;
}

/** `mayfly run` with a child that asks its SDK for keys at each line of its input. */
async function runChild(ttl: number) {
  const command = [process.execPath, ...tsxArguments, sdkProgram, 'an-argument'];
  const args = [
    'run',
    '--purpose',
    'reconcile.invoices',
    '--grant',
    MARCH,
    '--grant-ttl',
    String(ttl),
    '--',
    ...command,
  ];
  const cli = startCli(args, { env: { MAYFLY_DIR: house.devDir }, holdInput: true });
  let at = 0;
  const next = async () => {
    const lines = () => cli.said().stdout.split('\n').slice(0, -1);
    await vi.waitFor(() => expect(lines().length, cli.said().stderr).toBeGreaterThan(at), { timeout: 60_000 });
    return JSON.parse(lines()[at++] ?? '');
  };
  await next();
  const keys = async (): Promise<AwsKeys> => {
    cli.child.stdin?.write('\n');
    const { accessKeyId, secretAccessKey, sessionToken } = await next();
    return { accessKeyId, secretAccessKey, sessionToken };
  };
  return { cli, keys };
}

describe('a credential for AWS', () => {
  test('works until its task is completed, and then no more, while that of another task goes on', async () => {
    const [task, other] = [await openTask(), await openTask()];
    const [grant, sibling] = [await issue(task), await issue(other)];
    expect(grant.issued.credential).toMatchObject({
      region: aws.account.region,
      guarantee: { revocation: 'propagating', propagation_seconds: 60, enumerable: false, native_expiry: true },
    });
    expect(await reads(grant.keys)).toBe('read');

    const { revocations } = await house.client().complete(task, { wait: 30 });
    expect(revocations).toMatchObject([
      { state: 'contained', evidence: { by: 'fence', probe_refused: 3, sibling: 'allowed' } },
    ]);
    expect(await reads(grant.keys)).toBe('AccessDenied');
    expect(await reads(sibling.keys)).toBe('read');
    expect(await house.client().grant(grant.id)).toMatchObject({ state: 'revoked' });

    await house.client().complete(other, { wait: 30 });
    expect(await reads(sibling.keys)).toBe('AccessDenied');
  });

  test('is renewed by another session of the same identity, and both end together', async () => {
    const task = await openTask();
    const grant = await issue(task, 60);
    const { credential, grant: renewed } = await house.client().renew(grant.id, 120);
    expect(Date.parse(renewed.deadline)).toBeGreaterThan(grant.deadline);
    const second = keysOf(credential ?? {});
    expect(second.accessKeyId).not.toBe(grant.keys.accessKeyId);
    expect([await reads(grant.keys), await reads(second)]).toEqual(['read', 'read']);
    await house.client().complete(task, { wait: 30 });
    expect([await reads(grant.keys), await reads(second)]).toEqual(['AccessDenied', 'AccessDenied']);
  });

  test('dies by itself at its deadline, far below the shortest session of STS, and is called ended by that', async () => {
    const grant = await issue(await openTask(), 6);
    expect(await reads(grant.keys)).toBe('read');
    await vi.waitFor(async () => expect(await reads(grant.keys)).toBe('AccessDenied'), {
      timeout: 60_000,
      interval: 200,
    });
    await vi.waitFor(
      async () => expect(await revocationOf(grant.id)).toMatchObject({ state: 'clean', evidence: { by: 'deadline' } }),
      {
        timeout: 60_000,
        interval: 500,
      },
    );
    // To wait for it was no failure.
    const failures = await house.onStore(
      `SELECT payload FROM mayfly.audit_events WHERE grant_id = $1 AND type = 'revocation.attempted'`,
      [grant.id.replace('grt_', '')],
    );
    expect(failures).toEqual([]);
  });

  test('is renewed inside the command that `mayfly run` runs, which ends as soon as both of its sessions are cut', async () => {
    const { cli, keys } = await runChild(30);
    const first = await keys();
    expect(await reads(first)).toBe('read');
    let second = first;
    const look = async () => {
      second = await keys();
      expect(second.accessKeyId).not.toBe(first.accessKeyId);
    };
    await vi.waitFor(look, { timeout: 60_000, interval: 500 });
    expect(await reads(second)).toBe('read');
    cli.endInput();
    expect(await cli.ended).toMatchObject({ code: 0, stderr: '' });
    expect([await reads(first), await reads(second)]).toEqual(['AccessDenied', 'AccessDenied']);
    const [grant] = await house.onStore<{ id: string }>(
      'SELECT id FROM mayfly.grants ORDER BY created_at DESC LIMIT 1',
    );
    // It did not wait for what stays in the fence.
    expect(await house.onStore('SELECT state FROM mayfly.revocations WHERE grant_id = $1', [grant?.id])).toEqual([
      { state: 'contained' },
    ]);
  });

  test('that was lost in a crash between AssumeRole and the commit is denied by its handle, and nobody’s failure at the end', async () => {
    const replica = await house.startReplica({ MAYFLY_MINT_SECONDS: '2' }, [{ step: 'mint.after', signal: 'SIGKILL' }]);
    const task = await openTask();
    const lost = house.client('agent-recon', replica.url).issue(task, { entitlement: MARCH, ttl_seconds: 30 });
    await expect(lost).rejects.toBeInstanceOf(Error);
    const [row] = await house.onStore<{ id: string; handle: string; facts: unknown }>(
      `SELECT id, handle, facts FROM mayfly.grants WHERE task_id = $1`,
      [task.replace('task_', '')],
    );
    expect(row).toMatchObject({ facts: null });
    await house.client().complete(task, { wait: 30 });
    const grant = `grt_${row?.id}`;
    await vi.waitFor(async () => expect(await house.client().grant(grant)).toMatchObject({ state: 'revoked' }), {
      timeout: 60_000,
      interval: 500,
    });
    await vi.waitFor(async () => expect(await revocationOf(grant)).toMatchObject({ state: 'clean' }), {
      timeout: 90_000,
      interval: 500,
    });
  });
});

test('`mayfly target` prints what an administrator makes, in two forms, and plays the canary', async () => {
  const env = {
    MAYFLY_DATABASE_URL: house.store.runtimeUrl.reveal(),
    MAYFLY_PROVIDERS: 'postgres,aws-sts',
    MAYFLY_SECRETS_DIR: house.secretsDir,
  };
  const run = async (...args: readonly string[]) => await startCli(['target', ...args], { env }).ended;
  const json = await run('prepare', 'aws');
  expect(json).toMatchObject({ code: 0, stderr: '' });
  expect(JSON.parse(json.stdout)).toMatchObject({
    roles: aws.roles,
    permissions_boundary: { arn: expect.stringContaining(':policy/') },
  });
  const terraform = await run('prepare', 'aws', '--format', 'terraform');
  expect(terraform.stdout).toContain('resource "aws_iam_role" "agent"');
  expect(await run('prepare', 'ledger-db', '--format', 'terraform')).toMatchObject({
    code: 1,
    stderr: expect.stringContaining('is not printed as terraform'),
  });
  const applied = await run('prepare', 'aws', '--admin-url-file', '/dev/null');
  expect(applied).toMatchObject({ code: 1, stderr: expect.stringContaining('has no administrator’s URL') });
  const checked = await run('check', 'aws', '--json');
  expect(JSON.parse(checked.stdout).filter(({ ok }: { ok: boolean }) => !ok)).toEqual([]);
  // The SDK has nothing to say of the release of Node.
  expect(checked.stderr).not.toContain('node >=');
  for (const { stdout, stderr } of [json, terraform, checked])
    expect(stdout + stderr).not.toContain(aws.broker.secretAccessKey);
});
