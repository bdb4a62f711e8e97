import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import pg from 'pg';
import type { Credential } from '../../src/client/index.ts';
import { type AwsHouse, BUCKET, furnish } from '../contract/aws-sts-fixture.ts';
import {
  entitlement,
  mountDatabase,
  openbaoFolder,
  opens,
  startVaultHouse,
  type VaultHouse,
} from '../contract/vault-fixture.ts';
import { accountOf, tryToRead } from './aws-account.ts';
import { type House, type HouseOptions, startHouse } from './house.ts';
import { findMiniStack, startMiniStack } from './ministack.ts';

export const SYSTEMS = ['ledger-db', 'aws', 'vault'] as const;
export type System = (typeof SYSTEMS)[number];

const ministackHome = await findMiniStack();

/** False, and said aloud, where the servers are not there; in CI that is a failure. */
export const haveSystems = ministackHome !== undefined && openbaoFolder !== undefined;

/** Of each system: of confidential data, and of restricted data. */
export const entitlements: Readonly<Record<System, { readonly confidential: string; readonly restricted: string }>> = {
  'ledger-db': { confidential: 'ledger-db/read-invoices', restricted: 'ledger-db/read-payments' },
  aws: { confidential: 'aws/read', restricted: 'aws/look' },
  vault: { confidential: 'vault/read', restricted: 'vault/look' },
};

/** One broker with a PostgreSQL, an AWS account and an OpenBao, whose database engine makes logins in that PostgreSQL. */
export interface ThreeSystems {
  readonly house: House;
  readonly aws: AwsHouse;
  readonly vault: VaultHouse;
  /** The catalog, which permits everything. */
  readonly files: Readonly<Record<string, string>>;
  /** Whether it opens what it is for, tried as its agent would. */
  works(system: System, credential: Credential): Promise<boolean>;
  stop(): Promise<void>;
}

export async function startThreeSystems(options: HouseOptions = {}): Promise<ThreeSystems> {
  if (ministackHome === undefined) throw new Error('no MiniStack');
  const closing: (() => Promise<unknown>)[] = [];
  const stop = async () => {
    for (const close of closing.splice(0).reverse()) await close();
  };
  try {
    const ministack = await startMiniStack(ministackHome);
    closing.push(() => ministack.stop());
    const aws = await furnish(accountOf(ministack));
    const house = await startHouse({ ...options, env: { MAYFLY_PROVIDERS: 'postgres,aws-sts,vault', ...options.env } });
    closing.push(() => house.stop());
    const vault = await startVaultHouse({ entitlements: [readers], installation: house.broker.installation });
    closing.push(() => vault.stop());
    await mountDatabase(vault, house.server);
    putSecrets(house, 'aws', {
      key: aws.broker.accessKeyId,
      secret: aws.broker.secretAccessKey,
      session: aws.broker.sessionToken ?? '',
    });
    putSecrets(house, 'vault', { 'secret-id': vault.secrets.get('file:secret-id') ?? '' });
    const files = { ...house.files, ...filesOfAws(aws), ...filesOfVault(vault), ...permissive };
    await house.broker.apply(files);
    const works = async (system: System, credential: Credential) => {
      if (system === 'aws') return (await tryToRead(aws.account, keysOf(credential), BUCKET, 'march')) === 'read';
      return system === 'vault' ? await opens(house.server, credential) : await logsIn(credential);
    };
    return { house, aws, vault, files, works, stop };
  } catch (error) {
    await stop();
    throw error;
  }
}

const readers = entitlement({ mode: 'dynamic', policies: ['db-readers'], path: 'database/creds/readers' });
const permissive = { 'policies/test.cedar': '@id("all") permit (principal, action, resource is Mayfly::Entitlement);' };
const target = { environment: 'demo', owner: 'team-platform', sensitivity: 'confidential' };

function putSecrets(house: House, name: System, secrets: Readonly<Record<string, string>>): void {
  const folder = join(house.secretsDir, name);
  mkdirSync(folder, { recursive: true });
  for (const [file, text] of Object.entries(secrets)) writeFileSync(join(folder, file), text, { mode: 0o600 });
}

function filesOfAws({ account, roles }: AwsHouse): Record<string, string> {
  const connection = {
    account_id: account.id,
    region: account.region,
    roles: [{ arn: roles[0] }],
    broker: { access_key_id: 'file:key', secret_access_key: 'file:secret', session_token: 'file:session' },
    endpoints: { sts: account.endpoint, iam: account.endpoint, s3: account.endpoint },
    probe: { action: 's3:ListBucket', bucket: BUCKET },
  };
  const statements = [{ Effect: 'Allow', Action: 's3:GetObject', Resource: `arn:aws:s3:::${BUCKET}/march` }];
  return {
    'targets/aws.yaml': JSON.stringify({ ...target, name: 'aws', provider: 'aws-sts', connection }),
    'entitlements/aws.yaml': JSON.stringify(entitlementsOf('aws', { role: roles[0], statements })),
  };
}

function filesOfVault({ connection }: VaultHouse): Record<string, string> {
  return {
    'targets/vault.yaml': JSON.stringify({ ...target, name: 'vault', provider: 'vault', connection }),
    'entitlements/vault.yaml': JSON.stringify(
      entitlementsOf('vault', { mode: 'dynamic', policies: ['db-readers'], path: 'database/creds/readers' }),
    ),
  };
}

function entitlementsOf(system: System, provider: unknown): unknown[] {
  return (['confidential', 'restricted'] as const).map((sensitivity) => ({
    name: entitlements[system][sensitivity],
    ...{ target: system, sensitivity, actions: ['read'], max_ttl_seconds: 600, provider },
  }));
}

function keysOf(credential: Credential) {
  const { access_key_id: id, secret_access_key: secret, session_token: token } = credential;
  return { accessKeyId: String(id), secretAccessKey: String(secret), sessionToken: String(token) };
}

async function logsIn(credential: Credential): Promise<boolean> {
  const agent = new pg.Client({ connectionString: String(credential['url']) });
  // What is refused says so at once; a session that is ended later says it here.
  agent.on('error', () => {});
  try {
    await agent.connect();
    return true;
  } catch (error) {
    if (error instanceof pg.DatabaseError) return false;
    throw error;
  } finally {
    await agent.end().catch(() => {});
  }
}
