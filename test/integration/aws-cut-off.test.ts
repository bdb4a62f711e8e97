import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test, vi } from 'vitest';
import { BUCKET, furnish } from '../contract/aws-sts-fixture.ts';
import { type AwsKeys, tryToRead } from '../support/aws-account.ts';
import { type AwsStandIn, startAwsStandIn } from '../support/aws-stand-in/server.ts';
import { awsFilesOf, crowdOut } from '../support/aws-house.ts';
import { type House, startHouse } from '../support/house.ts';

/** When the fence of a role has no room to spare those who live, they are told so, and may ask again. */

const MARCH = 'aws/read-march';
let aws: AwsStandIn;
let house: House;

beforeAll(async () => {
  aws = await startAwsStandIn();
  const furnished = await furnish(aws);
  house = await startHouse({ env: { MAYFLY_PROVIDERS: 'postgres,aws-sts', MAYFLY_SWEEP_SECONDS: '1' } });
  const secrets = join(house.secretsDir, 'aws');
  mkdirSync(secrets);
  writeFileSync(join(secrets, 'key'), furnished.broker.accessKeyId);
  writeFileSync(join(secrets, 'secret'), furnished.broker.secretAccessKey);
  writeFileSync(join(secrets, 'session'), furnished.broker.sessionToken ?? '');
  await house.broker.apply({ ...house.files, ...awsFilesOf(aws, furnished.roles[0] ?? '', MARCH, BUCKET) });
}, 120_000);
afterAll(async () => {
  await house?.stop();
  await aws?.stop();
});

async function open(): Promise<string> {
  return (await house.client().openTask(await house.sign({ entitlements: [MARCH] }))).task.id;
}

async function issue(task: string) {
  const { grant, credential } = await house.client().issue(task, { entitlement: MARCH, ttl_seconds: 600 });
  const { access_key_id: id, secret_access_key: secret, session_token: token } = credential;
  const keys: AwsKeys = { accessKeyId: String(id), secretAccessKey: String(secret), sessionToken: String(token) };
  return { id: grant.id, reads: () => tryToRead(aws, keys, BUCKET, 'march') };
}

test('grants that a full fence cuts besides end with that cause, and whoever had them gets others that work', async () => {
  const [crowded, innocent] = [await open(), await open()];
  for (let count = 0; count < 12; count += 1) await issue(crowded);
  const cut = await issue(innocent);
  expect(await cut.reads()).toBe('read');
  // Somebody gives the role another policy, which leaves the fence next to nothing.
  crowdOut(aws, 'agent', 900);
  await house.client().complete(crowded, { wait: 30 });

  await vi.waitFor(
    async () => expect(await house.client().grant(cut.id)).toMatchObject({ state: 'revoked', ended_by: 'cut_off' }),
    { timeout: 60_000, interval: 200 },
  );
  expect(await cut.reads()).toBe('AccessDenied');
  const events = await house.onStore<{ type: string; cause: string; grants: string[] | null }>(
    `SELECT type, cause, payload->'grants' AS grants FROM mayfly.audit_events
     WHERE (type = 'grant.ended' AND grant_id = $1) OR type = 'target.cut_off' ORDER BY type`,
    [cut.id.slice(4)],
  );
  expect(events).toEqual([
    { type: 'grant.ended', cause: 'cut_off', grants: null },
    { type: 'target.cut_off', cause: 'none', grants: [cut.id] },
  ]);

  // While there is no room for others none is given.
  await expect(issue(innocent)).rejects.toMatchObject({ code: 'target_unavailable', status: 503 });
  aws.putPolicy('agent', 'crowd', undefined);
  const again = await vi.waitFor(async () => await issue(innocent), { timeout: 60_000, interval: 500 });
  expect(await again.reads()).toBe('read');
  // And stays, whoever ends next.
  const other = await open();
  await issue(other);
  await house.client().complete(other, { wait: 30 });
  expect(await again.reads()).toBe('read');
  expect(await house.client().grant(again.id)).toMatchObject({ state: 'active' });
});
