import { execFile } from 'node:child_process';
import { createHash, randomUUID } from 'node:crypto';
import { cpSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { z } from 'zod';
import { freePort } from './free-port.ts';
import { cachedServer, fillCache, hasAll } from './server-cache.ts';
import { answers, makeServerFolder, type ServerProcess, startServer } from './server-process.ts';

const version = '26.4.7';
/** Of the distribution's zip. */
const sha256 = 'dd9834c023460be856f731423d86228c23b5d002194a2064642bec0cc6573eaa';
const artifact = `org.keycloak:keycloak-quarkus-dist:${version}:zip`;
const JAR = join('lib', 'quarkus-run.jar');
const START_MS = 240_000;

/**
 * Its folder in the cache of test servers, where that was fetched to already. It starts slowly: its suite runs in CI and where
 * `MAYFLY_KEYCLOAK=1` asks for it, and then its absence is a failure.
 */
export function findKeycloak(): string | undefined {
  if (process.env['CI'] !== 'true' && process.env['MAYFLY_KEYCLOAK'] !== '1') {
    console.warn('\n*** SKIPPED: Keycloak, which starts slowly (set MAYFLY_KEYCLOAK=1) ***\n');
    return undefined;
  }
  if (hasAll(cachedHome(), [JAR])) return cachedHome();
  throw new Error('Keycloak was not found (npm run test:servers -- keycloak, which needs Java, Maven and unzip)');
}

function cachedHome(): string {
  return cachedServer(`keycloak-${version}`);
}

/** Fetches the distribution, compares it with the one that was reviewed, and prepares it to start fast. Answers its folder. */
export async function fetchKeycloak(): Promise<string> {
  const home = cachedHome();
  if (hasAll(home, [JAR])) return home;
  const run = promisify(execFile);
  const folder = mkdtempSync(join(tmpdir(), 'mayfly-keycloak-'));
  try {
    const copy = 'org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy';
    const into = [`-DoutputDirectory=${folder}`, `-Dmaven.repo.local=${join(folder, 'maven')}`];
    await run('mvn', ['-B', '-q', copy, `-Dartifact=${artifact}`, ...into], { cwd: folder });
    const zip = join(folder, `keycloak-quarkus-dist-${version}.zip`);
    const digest = createHash('sha256').update(readFileSync(zip)).digest('hex');
    if (digest !== sha256) throw new Error(`this is not the Keycloak that was reviewed: ${digest}`);
    await fillCache(home, async (half) => {
      await run('unzip', ['-q', zip, '-d', folder]);
      cpSync(join(folder, `keycloak-${version}`), half, { recursive: true });
      await run(join(half, 'bin', 'kc.sh'), ['build', '--db=dev-mem']);
    });
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
  return home;
}

export interface KeycloakClient {
  readonly id: string;
  /** Of its access tokens. */
  readonly audience: string;
  /** In its access tokens, always the same. */
  readonly claims?: Readonly<Record<string, string>>;
  /** Its tokens are bound to its key. */
  readonly dpop?: boolean;
}

/** A Keycloak with one realm, in memory. Its clients get tokens for themselves (RFC 9068). */
export interface Keycloak extends Pick<ServerProcess, 'stop'> {
  readonly issuer: string;
  readonly jwksUrl: string;
  readonly tokenUrl: string;
  makeClient(client: KeycloakClient): Promise<void>;
  /** By client credentials. @param proof For the token endpoint (RFC 9449 §5). Throws where it gives none. */
  clientToken(id: string, proof?: string): Promise<string>;
  /** From now on it signs with another key, and publishes both. */
  rotate(): Promise<void>;
}

const REALM = 'agents';
const ADMINISTRATOR = 'administrator';
const tokenAnswer = z.object({ access_token: z.string() });

/** @param home From `findKeycloak`. Up to a minute passes until it is ready. */
export async function startKeycloak(home: string): Promise<Keycloak> {
  const url = `http://127.0.0.1:${await freePort()}`;
  const password = randomUUID();
  const listen = ['--http-enabled=true', '--http-host=127.0.0.1', `--http-port=${new URL(url).port}`];
  const settings = ['start', '--optimized', '--cache=local', '--log-level=warn', `--hostname=${url}`, ...listen];
  const server = startServer(makeServerFolder('keycloak'), 'java', [...virtualMachine(home), ...settings], {
    KC_BOOTSTRAP_ADMIN_USERNAME: ADMINISTRATOR,
    KC_BOOTSTRAP_ADMIN_PASSWORD: password,
  });
  await server.ready(() => answers(`${url}/realms/master`), START_MS);

  const realm = `${url}/realms/${REALM}`;
  const tokenOf = async (issuer: string, form: Record<string, string>, headers: Record<string, string> = {}) => {
    const answer = await post(`${issuer}/protocol/openid-connect/token`, new URLSearchParams(form), headers);
    return tokenAnswer.parse(await answer.json()).access_token;
  };
  const administer = async (path: string, body: object) => {
    const login = { grant_type: 'password', client_id: 'admin-cli', username: ADMINISTRATOR, password };
    const authorization = `Bearer ${await tokenOf(`${url}/realms/master`, login)}`;
    const headers = { authorization, 'content-type': 'application/json' };
    await post(`${url}/admin/realms${path}`, JSON.stringify(body), headers);
  };
  await administer('', { realm: REALM, enabled: true });
  return {
    issuer: realm,
    jwksUrl: `${realm}/protocol/openid-connect/certs`,
    tokenUrl: `${realm}/protocol/openid-connect/token`,
    stop: () => server.stop(),
    makeClient: (client) => administer(`/${REALM}/clients`, representation(client)),
    async clientToken(id, proof) {
      const form = { grant_type: 'client_credentials', client_id: id, client_secret: secretOf(id) };
      return await tokenOf(realm, form, proof === undefined ? {} : { dpop: proof });
    },
    async rotate() {
      const provider = { providerType: 'org.keycloak.keys.KeyProvider', providerId: 'rsa-generated' };
      await administer(`/${REALM}/components`, { name: randomUUID(), ...provider, config: { priority: ['1000'] } });
    },
  };
}

/** What `kc.sh` passes, which would not end together with its Java, and what makes that start sooner. */
function virtualMachine(home: string): readonly string[] {
  const open = ['java.util', 'java.util.concurrent', 'java.security'];
  const properties = {
    'java.util.concurrent.ForkJoinPool.common.threadFactory':
      'io.quarkus.bootstrap.forkjoin.QuarkusForkJoinWorkerThreadFactory',
    'java.util.logging.manager': 'org.jboss.logmanager.LogManager',
    'kc.home.dir': home,
    'jboss.server.config.dir': join(home, 'conf'),
  };
  return [
    ...['-Xms64m', '-Xmx512m', '-XX:+UseSerialGC', '-XX:TieredStopAtLevel=1'],
    ...open.map((name) => `--add-opens=java.base/${name}=ALL-UNNAMED`),
    ...Object.entries(properties).map(([name, value]) => `-D${name}=${value}`),
    ...['-cp', join(home, JAR), 'io.quarkus.bootstrap.runner.QuarkusEntryPoint'],
  ];
}

function secretOf(id: string): string {
  return `the-secret-of-${id}`;
}

/** In Keycloak's own words. */
function representation({ id, audience, claims = {}, dpop = false }: KeycloakClient): object {
  const mapper = (name: string, kind: string, config: Readonly<Record<string, string>>) => ({
    name,
    protocol: 'openid-connect',
    protocolMapper: kind,
    config: { ...config, 'access.token.claim': 'true' },
  });
  return {
    clientId: id,
    secret: secretOf(id),
    serviceAccountsEnabled: true,
    standardFlowEnabled: false,
    // Else its tokens are for `account`, too.
    fullScopeAllowed: false,
    attributes: { 'access.token.header.type.rfc9068': 'true', 'dpop.bound.access.tokens': String(dpop) },
    protocolMappers: [
      mapper('audience', 'oidc-audience-mapper', { 'included.custom.audience': audience }),
      ...Object.entries(claims).map(([name, value]) =>
        mapper(name, 'oidc-hardcoded-claim-mapper', {
          'claim.name': name,
          'claim.value': value,
          'jsonType.label': 'String',
        }),
      ),
    ],
  };
}

async function post(url: string, body: string | URLSearchParams, headers: Readonly<Record<string, string>>) {
  const answer = await fetch(url, { method: 'POST', body, headers });
  if (!answer.ok) throw new Error(`${url} answered ${answer.status}: ${await answer.text()}`);
  return answer;
}
