import pg from 'pg';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { AgentKey, type GrantBody, type TaskBody } from '../../src/client/index.ts';
import { type ProblemCode, problemKind } from '../../src/domain/problems.ts';
import { makeKey, type TestKey } from '../../src/identity/testing/keys.ts';
import { makeProof, type ProofChange } from '../../src/identity/testing/proofs.ts';
import { ask, type AskOptions, type Reply } from './ask.ts';
import { type Change, forge } from './forge.ts';
import { type House, type HouseOptions, type SignOptions, startHouse } from './house.ts';

export const READ = 'ledger-db/read-invoices';

export type Send = () => Promise<Reply>;

/** A house with a caller in it that is refused again and again. */
export interface Refused {
  readonly house: House;
  /** Of agent-recon, the caller. */
  readonly token: string;
  /** The caller's own, that its tasks name. Null: they name none. */
  readonly key: TestKey | null;
  /** What its task requests say beside what they always do. */
  readonly stated: Partial<SignOptions>;
  /** The caller's, alive all the time. It names one entitlement more than the catalog has. */
  readonly task: TaskBody;
  readonly grant: GrantBody;
  /** The caller's, completed. */
  readonly ended: TaskBody;
  /** Looks into the store, as its owner: one connection for hundreds of looks. */
  readonly store: pg.Client;
}

let made: Refused | undefined;

/** What `useRefusals` made. */
export function refused(): Refused {
  if (made === undefined) throw new Error('not yet');
  return made;
}

/** For a file of tests: makes the house before them and ends it after them. */
export function useRefusals(options: HouseOptions = {}): void {
  let house: House | undefined;
  beforeAll(async () => {
    house = await startHouse(options);
    const key = options.proofOfPossession === 'required' ? makeKey('caller') : null;
    const own = key === null ? undefined : await AgentKey.from(key.privateKey.export({ format: 'jwk' }));
    const stated =
      own === undefined
        ? {}
        : { keyThumbprint: own.thumbprint, phase: 'execute', maxDepth: 1, params: { tenant: 'acme' } };
    const client = house.client('agent-recon', house.url, own);
    const entitlements = [READ, 'ledger-db/no-such-thing'];
    const { task } = await client.openTask(await house.sign({ ...stated, entitlements }));
    const { grant } = await client.issue(task.id, { entitlement: READ });
    const { task: ended } = await client.openTask(await house.sign(stated));
    await client.complete(ended.id);
    const store = new pg.Client({ connectionString: house.store.ownerUrl.reveal() });
    await store.connect();
    made = { house, token: await house.token(), key, stated, task, grant, ended, store };
  });
  afterAll(async () => {
    await made?.store.end();
    await house?.stop();
  });
}

/** A call as the caller makes it, proven by its key if it has one. @param change Of that proof. */
export function call(method: string, path: () => string, options: AskOptions = {}, change?: ProofChange): Send {
  return async () => {
    const { house, key, token } = refused();
    const sent = { token, ...options };
    const proven = { method, url: `${house.url}${path()}`, token: sent.token, now: new Date() };
    const proof = key === null ? {} : { dpop: makeProof(key, proven, change) };
    return await ask(house.url, method, path(), { ...sent, headers: { ...proof, ...options.headers } });
  };
}

export const open = (body: unknown): Send => call('POST', () => '/v1/tasks', { body });

export const issue = (body: unknown, headers: AskOptions['headers'] = {}): Send =>
  call('POST', () => `/v1/tasks/${refused().task.id}/grants`, { body, headers });

/** Opens a task with a request that is right but for one change, signed by the issuer itself. */
export function request(change: Change, more: object = {}): Send {
  return async () => {
    const { house, stated } = refused();
    return await open({ request: forge(house.devDir, 'orchestrator', await house.sign(stated), change), ...more })();
  };
}

const pages = new Map<ProblemCode, Reply>();

/** The answer is that refusal, says what to do next, and has its own page. */
export async function expectRefusal(
  reply: Reply,
  status: number,
  code: ProblemCode,
  places?: readonly string[],
): Promise<void> {
  expect({ status: reply.status, code: reply.body['code'] }).toEqual({ status, code });
  const { title, next } = problemKind(code);
  expect(next.length).toBeGreaterThan(10);
  const { detail, errors, ended_by: endedBy, ...rest } = reply.body;
  const instance = reply.headers['x-request-id'];
  expect(rest).toEqual({ type: `/problems/${code}`, title, status, code, next, instance });
  expect(detail ?? '').toBeTypeOf('string');
  expect(endedBy).toBe(code === 'task_ended' ? 'completed' : undefined);
  expect(reply.headers).toMatchObject({ 'content-type': 'application/problem+json', 'cache-control': 'no-store' });
  expect(reply.headers['www-authenticate'] ?? '').toMatch(status === 401 ? /^(Bearer|DPoP) realm="mayfly"/ : /^$/);
  const named = Array.isArray(errors) ? errors.map((error: { path: string }) => error.path) : [];
  expect([...new Set(named)]).toEqual(places ?? [...new Set(named)]);
  const page = pages.get(code) ?? (await ask(refused().house.url, 'GET', `/problems/${code}`));
  pages.set(code, page);
  expect(page.body).toMatchObject({ code, next });
}

/** Everything that stands in the store, and our roles in the target. */
async function everything(): Promise<unknown> {
  const { rows } = await refused().store.query(`
    SELECT 'task' AS what, id::text, state, ended_by, not_after::text AS until FROM mayfly.tasks
    UNION ALL SELECT 'grant', id::text, state, ended_by, deadline::text FROM mayfly.grants
    UNION ALL SELECT 'revocation', id::text, state, NULL, due_at::text FROM mayfly.revocations
    UNION ALL SELECT 'key', key, task_id::text, grant_id::text, NULL FROM mayfly.idempotency_keys
    UNION ALL SELECT 'decision', id::text, NULL, NULL, NULL FROM mayfly.decisions
    UNION ALL SELECT 'event', id::text, type, NULL, NULL FROM mayfly.audit_events
    UNION ALL SELECT 'catalog', revision::text, NULL, NULL, NULL FROM mayfly.catalog_active
    UNION ALL SELECT 'role', rolname, rolcanlogin::text, NULL, rolvaliduntil::text FROM pg_roles WHERE rolname LIKE 'mfy\\_%'
    ORDER BY 1, 2`);
  return rows;
}

/** What is sent, and the places that the answer names, if it names any. */
type Cases = Readonly<Record<string, Send | readonly [send: Send, ...places: string[]]>>;

let counted = 0;

/** How many cases this file of tests has put up so far. */
export const countOfCases = (): number => counted;

/** One test for each: refused just so, nothing made and nothing lost, and the same caller goes on. */
export function refuses(status: number, code: ProblemCode, cases: Cases): void {
  for (const [what, how] of Object.entries(cases)) {
    counted += 1;
    const [send, ...places] = typeof how === 'function' ? [how] : how;
    test(`${what}: ${code}`, async () => {
      const before = await everything();
      await expectRefusal(await send(), status, code, places.length === 0 ? undefined : places);
      expect(await everything()).toEqual(before);
      const { task, grant } = refused();
      expect(await call('GET', () => `/v1/tasks/${task.id}`)()).toMatchObject({
        status: 200,
        body: { id: task.id, state: 'active', grants: [{ id: grant.id, state: 'active' }] },
      });
    });
  }
}
