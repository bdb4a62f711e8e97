import { PassThrough } from 'node:stream';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { whoAmIBody } from '../../src/http/whoami-bodies.ts';
import { ask } from '../support/ask.ts';
import { type House, startHouse } from '../support/house.ts';
import { applyLogin, Browser, LOGIN_CLIENT, type LoginProvider, startLoginProvider } from '../support/oidc-login.ts';
import { operatorsOf } from '../support/operators.ts';

const SESSION = '__Host-mayfly-session';
const LOGIN = '__Host-mayfly-login';
const ROLES = '{ sre: [operator], finance: [{ roles: [viewer], scope: { owner: team-finance } }] }';

let house: House;
let provider: LoginProvider;
let groups: Record<string, string[]>;
let browser: Browser;
let logged = '';

async function applyWith(source: string | undefined): Promise<void> {
  const trust = house.files['trust.yaml'] ?? '';
  await house.broker.apply({ ...house.files, 'trust.yaml': source === undefined ? trust : `${trust}  - ${source}\n` });
}

beforeAll(async () => {
  const logTo = new PassThrough();
  logTo.on('data', (text: Buffer) => {
    logged += text.toString();
  });
  house = await startHouse({ logTo, env: { MAYFLY_LOG_LEVEL: 'trace' } });
  provider = await startLoginProvider(`${house.url}/login/callback`, (account) => groups[account] ?? []);
  await applyLogin(house, provider, ROLES);
});
afterAll(async () => {
  await house?.stop();
  await provider?.stop();
});
beforeEach(() => {
  browser = new Browser();
  groups = { olga: ['sre', 'staff'], fritz: ['finance'], nobody: ['staff'] };
});

const callbackOf = async (account: string, by = browser) =>
  await by.signIn(`${house.url}/login`, account, `${house.url}/login/callback`);

async function signedIn(account: string, by = browser): Promise<Response> {
  const arrived = await by.send(await callbackOf(account, by));
  expect([arrived.status, arrived.headers.get('location')]).toEqual([302, '/v1/whoami']);
  return arrived;
}

const self = async (by = browser) => await by.send(`${house.url}/v1/whoami`);
const codeOf = async (response: Response) => [response.status, Object(await response.json())['code']];
const post = async (path: string, headers: Record<string, string> = { origin: house.url }, body: object = {}) =>
  await browser.send(`${house.url}${path}`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', ...headers },
    body: JSON.stringify(body),
  });
const events = async (operator: string) =>
  (
    await house.onStore<{ type: string }>(
      `SELECT type FROM mayfly.audit_events WHERE payload->>'by' = $1 ORDER BY ts, id`,
      [operator],
    )
  ).map(({ type }) => type);

describe('an operator signs in with a browser', () => {
  test('and is that operator with the roles of the catalog, by a cookie that no script and no other site has', async () => {
    const arrived = await signedIn('olga');
    const set = arrived.headers.getSetCookie().find((line) => line.startsWith(`${SESSION}=`));
    expect(set).toMatch(
      /^__Host-mayfly-session=[A-Za-z0-9_-]{43}; Path=\/; Secure; HttpOnly; SameSite=Lax; Max-Age=3[56]\d\d$/,
    );
    const body = whoAmIBody.parse(await (await self()).json());
    expect(body).toMatchObject({
      kind: 'operator',
      operator: 'people:olga',
      roles: [{ role: 'operator', scope: null }],
    });
    expect(Date.parse(body.token_expires_at) - Date.now()).toBeGreaterThan(3_500_000);
    expect((await post('/v1/targets/ledger-db/pause', undefined, { reason: 'by browser' })).status).toBe(200);
    expect((await post('/v1/targets/ledger-db/resume')).status).toBe(200);
    expect(await events('people:olga')).toEqual(['operator.signed_in', 'target.paused', 'target.resumed']);
    expect([...browser.cookies(house.url).keys()]).toEqual([SESSION]);
  });

  test('with a scope, where the catalog says so', async () => {
    await signedIn('fritz');
    expect(await (await self()).json()).toMatchObject({
      roles: [{ role: 'viewer', scope: { owner: 'team-finance' } }],
    });
    expect(await codeOf(await post('/v1/targets/ledger-db/pause', undefined, { reason: 'x' }))).toEqual([
      403,
      'operator_only',
    ]);
  });

  test('and is nobody without a role, and has no session', async () => {
    const response = await browser.send(await callbackOf('nobody'));
    expect(await codeOf(response)).toEqual([403, 'operator_only']);
    expect([...browser.cookies(house.url).keys()]).toEqual([]);
  });

  test('on any replica, and another finishes what one began', async () => {
    const second = await house.startReplica();
    const callback = await callbackOf('olga');
    const cookie = [...browser.cookies(house.url)].map(([name, value]) => `${name}=${value}`).join('; ');
    const { pathname, search } = new URL(callback);
    const there = await ask(second.url, 'GET', `${pathname}${search}`, { headers: { cookie } });
    expect(there.status).toBe(302);
    const session = (there.headers['set-cookie'] ?? []).find((line) => line.startsWith(SESSION))?.split(';')[0] ?? '';
    for (const url of [house.url, second.url])
      expect((await ask(url, 'GET', '/v1/whoami', { headers: { cookie: session } })).body['operator']).toBe(
        'people:olga',
      );
  });
});

describe('nobody is signed in', () => {
  test.each([
    ['by a link that another began', async (callback: string) => await new Browser().send(callback)],
    ['by another state', async (callback: string) => await browser.send(callback.replace(/state=[^&]*/, 'state=x'))],
    ['by another code', async (callback: string) => await browser.send(callback.replace(/code=[^&]*/, 'code=x'))],
    ['without a code', async (callback: string) => await browser.send(callback.replace(/code=[^&]*&?/, ''))],
    [
      'by the word of another issuer',
      async (callback: string) => await browser.send(callback.replace(/iss=[^&]*/, 'iss=https%3A%2F%2Felse.example')),
    ],
    ['when the issuer refuses', async (callback: string) => await browser.send(`${callback}&error=access_denied`)],
    [
      'by the verifier of another attempt',
      async (callback: string) => {
        const jar = browser.cookies(house.url);
        jar.set(LOGIN, `${'A'.repeat(43)}.people`);
        return await browser.send(callback);
      },
    ],
    [
      'at another source',
      async (callback: string) => {
        const jar = browser.cookies(house.url);
        jar.set(LOGIN, (jar.get(LOGIN) ?? '').replace('.people', '.dev-operators'));
        return await browser.send(callback);
      },
    ],
  ])('%s', async (_how, attempt) => {
    const response = await attempt(await callbackOf('olga'));
    expect(await codeOf(response)).toEqual([401, 'login_failed']);
    expect(browser.cookies(house.url).has(SESSION)).toBe(false);
  });

  test('twice by one code', async () => {
    const callback = await callbackOf('olga');
    const attempt = browser.cookies(house.url).get(LOGIN) ?? '';
    expect((await browser.send(callback)).status).toBe(302);
    browser.cookies(house.url).set(LOGIN, attempt);
    expect(await codeOf(await browser.send(callback))).toEqual([401, 'login_failed']);
  });

  test('with another client secret, or where nothing is said of a login', async () => {
    await applyWith(provider.source(ROLES));
    expect(await codeOf(await browser.send(await callbackOf('olga')))).toEqual([401, 'login_failed']);
    await applyWith(undefined);
    expect(await codeOf(await browser.send(`${house.url}/login`))).toEqual([404, 'not_found']);
    await applyWith(provider.source(ROLES, 'file:client'));
    expect(await codeOf(await browser.send(`${house.url}/login?source=dev-operators`))).toEqual([404, 'not_found']);
  });
});

describe('a session', () => {
  test('changes nothing for a page of another site', async () => {
    await signedIn('olga');
    const before = await events('people:olga');
    const foreign: Record<string, string>[] = [{ origin: 'https://evil.example' }, { origin: 'null' }, {}];
    for (const headers of foreign) {
      const said = await post('/v1/targets/ledger-db/pause', headers, { reason: 'by another site' });
      expect([headers, ...(await codeOf(said))]).toEqual([headers, 403, 'cross_site_refused']);
      expect([headers, ...(await codeOf(await post('/logout', headers)))]).toEqual([
        headers,
        403,
        'cross_site_refused',
      ]);
    }
    expect(await events('people:olga')).toEqual(before);
    expect((await self()).status).toBe(200);
  });

  test('ends with its logout, once and for all', async () => {
    await signedIn('olga');
    const secret = browser.cookies(house.url).get(SESSION) ?? '';
    expect((await post('/logout')).status).toBe(204);
    expect(browser.cookies(house.url).has(SESSION)).toBe(false);
    browser.cookies(house.url).set(SESSION, secret);
    expect(await codeOf(await self())).toEqual([401, 'session_ended']);
    expect((await post('/logout')).status).toBe(204);
    expect((await events('people:olga')).slice(-2)).toEqual(['operator.signed_in', 'operator.signed_out']);
  });

  test('ends with its time, and is forgotten when another begins', async () => {
    await signedIn('olga');
    await house.onStore(
      `UPDATE mayfly.operator_sessions SET created_at = created_at - interval '2 hours', expires_at = clock_timestamp()`,
    );
    expect(await codeOf(await self())).toEqual([401, 'session_ended']);
    await signedIn('fritz', new Browser());
    expect(await house.onStore('SELECT subject FROM mayfly.operator_sessions')).toEqual([{ subject: 'fritz' }]);
  });

  test('of the same browser ends when a new one begins', async () => {
    await signedIn('olga');
    const first = browser.cookies(house.url).get(SESSION) ?? '';
    await signedIn('fritz');
    const cookie = `${SESSION}=${first}`;
    expect((await ask(house.url, 'GET', '/v1/whoami', { headers: { cookie } })).body['code']).toBe('session_ended');
  });

  test('gives what the catalog in force gives, and nothing once its source is gone or another issuer', async () => {
    await signedIn('olga');
    await applyWith(provider.source('{ sre: [auditor] }', 'file:client'));
    expect(await (await self()).json()).toMatchObject({ roles: [{ role: 'auditor', scope: null }] });
    await applyWith(provider.source('{ others: [admin] }', 'file:client'));
    expect(await codeOf(await self())).toEqual([403, 'operator_only']);
    await applyWith(provider.source(ROLES, 'file:client').replace('claim: groups', 'claim: department'));
    expect(await codeOf(await self())).toEqual([403, 'operator_only']);
    const withoutLogin = provider.source(ROLES).replace(/,\s+login: .*$/, ' }');
    const another = provider.source(ROLES, 'file:client').replace(provider.issuer, 'https://another.example');
    for (const gone of [undefined, withoutLogin, another]) {
      await applyWith(gone);
      expect(await codeOf(await self())).toEqual([401, 'session_ended']);
    }
    await applyWith(provider.source(ROLES, 'file:client'));
    expect((await self()).status).toBe(200);
  });

  test('counts for nothing beside a token, and a stranger’s cookie for nothing at all', async () => {
    await signedIn('olga');
    const token = await operatorsOf(house).token('viewer');
    const both = await browser.send(`${house.url}/v1/whoami`, { headers: { authorization: `Bearer ${token}` } });
    expect(await both.json()).toMatchObject({ operator: 'dev-operators:olga' });
    const wrong = await browser.send(`${house.url}/v1/whoami`, { headers: { authorization: 'Bearer x' } });
    expect(wrong.status).toBe(401);
    for (const cookie of [`${SESSION}=x`, `${SESSION}=`, `${SESSION}=a; ${SESSION}=b`, 'x', ';;='])
      expect([cookie, (await ask(house.url, 'GET', '/v1/whoami', { headers: { cookie } })).status]).toEqual([
        cookie,
        401,
      ]);
  });

  test('leaves no token and no secret in a log or a row', async () => {
    const callback = await callbackOf('olga');
    const code = new URL(callback).searchParams.get('code') ?? 'none';
    const attempt = browser.cookies(house.url).get(LOGIN)?.split('.')[0] ?? 'none';
    expect((await browser.send(callback)).status).toBe(302);
    const session = browser.cookies(house.url).get(SESSION) ?? 'none';
    const tables = await house.onStore<{ name: string }>(
      `SELECT quote_ident(table_name) AS name FROM information_schema.tables WHERE table_schema = 'mayfly'`,
    );
    const rows = await Promise.all(
      tables.map(async ({ name }) => JSON.stringify(await house.onStore(`SELECT to_jsonb(t) FROM mayfly.${name} t`))),
    );
    expect(logged).toContain('/login/callback');
    for (const text of [logged, ...rows])
      for (const secret of [code, attempt, session, LOGIN_CLIENT.client_secret, 'eyJ'])
        expect([secret, text.includes(secret)]).toEqual([secret, false]);
  });
});
