import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { BUCKET, furnish } from '../contract/aws-sts-fixture.ts';
import { awsFilesOf, crowdOut } from '../support/aws-house.ts';
import { startAwsStandIn } from '../support/aws-stand-in/server.ts';
import type { Scenario } from './scenarios.ts';
import { plain } from './world.ts';

const MARCH = 'aws/read-march';
/** Worth a write after the crash, too, and over while it is waited for. */
const LIFE_SECONDS = 30;

/** Ends are written to a fence that has no room to spare who lives: that one ends with them, and hears why. */
export const besides: Scenario = async (world) => {
  const { house } = world;
  const aws = await startAwsStandIn();
  const { broker, roles } = await furnish(aws);
  const secrets = join(house.secretsDir, 'aws');
  mkdirSync(secrets, { recursive: true });
  writeFileSync(join(secrets, 'key'), broker.accessKeyId);
  writeFileSync(join(secrets, 'secret'), broker.secretAccessKey);
  writeFileSync(join(secrets, 'session'), broker.sessionToken ?? '');
  await house.broker.apply({ ...house.files, ...awsFilesOf(aws, roles[0] ?? '', MARCH, BUCKET) });
  const [crowded, innocent] = [
    await world.open({ entitlements: [MARCH] }),
    await world.open({ entitlements: [MARCH] }),
  ];
  const issue = async (task: string) =>
    (await world.client().issue(task, { entitlement: MARCH, ttl_seconds: LIFE_SECONDS })).grant.id;
  await Promise.all(Array.from({ length: 12 }, () => issue(crowded)));
  const cut = await issue(innocent);
  crowdOut(aws, 'agent', 900);
  return {
    act: () => world.client().complete(crowded, { wait: 30 }),
    after: async () => {
      const told = async () =>
        (
          await world.eye.store<{ ended_by: string | null }>('SELECT ended_by FROM mayfly.grants WHERE id = $1', [
            plain(cut),
          ])
        )[0]?.ended_by === 'cut_off';
      await world.until('whom it cut besides is told', told);
      await world.patiently(() => world.client().complete(innocent));
      await world.until('all of it is clean', async () =>
        (await world.eye.fates([plain(crowded), plain(innocent)])).every(({ revocation }) => revocation === 'clean'),
      );
      await house.broker.apply(house.files);
      await aws.stop();
    },
  };
};
