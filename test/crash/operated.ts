import { ProblemError } from '../../src/client/index.ts';
import { createHash, randomUUID } from 'node:crypto';
import { ask, type Reply } from '../support/ask.ts';
import { applyLogin, Browser, startLoginProvider } from '../support/oidc-login.ts';
import { operatorsOf } from '../support/operators.ts';
import { cancel, cutOff, heal, type Play, type Scenario } from './scenarios.ts';
import { INVOICES, PAYMENTS, plain, type World } from './world.ts';

const TARGET = '/v1/targets/ledger-db';
const REASON = { reason: 'the crash tests' };

async function post(world: World, path: string, body?: object, method = 'POST'): Promise<Reply> {
  const token = await operatorsOf(world.house).token('operator');
  return await ask(world.url, method, path, { token, ...(body === undefined ? {} : { body }) });
}

/** Asks as an operator does who is in earnest: until the answer is one of these. */
async function insist(world: World, path: string, body: object | undefined, ...wanted: string[]): Promise<void> {
  await world.until(`${path} is answered`, async () => {
    const reply = await post(world, path, body).catch(() => undefined);
    const { code } = reply?.body ?? {};
    return reply !== undefined && wanted.includes(typeof code === 'string' ? code : String(reply.status));
  });
}

/** Of one who goes on asking until the broker is dead. */
async function askOn(world: World, path: string, body?: object): Promise<void> {
  for (;;) {
    await post(world, path, body);
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

/** A task of one grant is cancelled while the target is out of reach: its revocation, and its role. */
async function stuck(world: World): Promise<{ task: string; path: string; role: string }> {
  const task = await world.open();
  const { grant } = await world.hold(task);
  cutOff(world);
  await world.client().cancel(task);
  const id = plain(grant.id);
  const [row] = await world.eye.store<{ id: string }>('SELECT id FROM mayfly.revocations WHERE grant_id = $1', [id]);
  return { task, path: `/v1/revocations/rev_${row?.id ?? ''}`, role: `mfy_${id.replaceAll('-', '')}` };
}

/** An operator wants it tried now, and says so again. */
export const retry: Scenario = async (world) => {
  const { task, path } = await stuck(world);
  return {
    act: () => askOn(world, `${path}/retry`),
    after: async () => {
      heal(world);
      await insist(world, `${path}/retry`, undefined, '202', 'revocation_over');
      await world.untilEnded(task);
    },
  };
};

/** An operator gives it up, says so again, and takes it away by hand. */
export const writeOff: Scenario = async (world) => {
  const { path, role } = await stuck(world);
  return {
    act: () => askOn(world, `${path}/write-off`, REASON),
    after: async () => {
      await insist(world, `${path}/write-off`, REASON, '200', 'revocation_over');
      const id = path.slice(path.lastIndexOf('_') + 1);
      const [row] = await world.eye.store('SELECT state FROM mayfly.revocations WHERE id = $1', [id]);
      if (row?.['state'] !== 'written_off') throw new Error(`what was written off is ${String(row?.['state'])}`);
      // While it is out of reach: what can be used there is chased.
      await dropByHand(world, role);
      heal(world);
    },
  };
};

/** A superuser's work. */
export async function dropByHand({ eye }: World, role: string): Promise<void> {
  await eye.target(`ALTER ROLE ${role} NOLOGIN`);
  await eye.target('SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE usename = $1', [role]);
  await eye.target(`DROP OWNED BY ${role}`);
  await eye.target(`DROP ROLE ${role}`);
}

async function resumed(world: World): Promise<void> {
  await insist(world, `${TARGET}/resume`, undefined, '200');
}

/** An operator pauses the target, and says so again: it is left alone until it goes on. */
export const pause: Scenario = async (world) => {
  const task = await world.open();
  const held = await world.hold(task);
  return {
    act: () => post(world, `${TARGET}/pause`, REASON),
    after: async () => {
      await insist(world, `${TARGET}/pause`, REASON, '200');
      await world.client().cancel(task);
      const other = await world.open();
      const refused: unknown = await world
        .client()
        .issue(other, { entitlement: INVOICES })
        .catch((error: unknown) => error);
      if (!(refused instanceof ProblemError && refused.code === 'target_paused')) throw new Error('it is not paused');
      await world.use(held);
      await resumed(world);
      await world.untilEnded(task);
    },
  };
};

/** An operator lets the target go on, and says so again: what was held back ends. */
export const resume: Scenario = async (world) => {
  const play: Play = await cancel(world);
  await insist(world, `${TARGET}/pause`, REASON, '200');
  return {
    act: () => post(world, `${TARGET}/resume`),
    after: async () => {
      await resumed(world);
      await play.after();
    },
  };
};

const KILL = '/v1/kill';

/** Lifts what stands of that scope, and says so again until it is answered. */
async function lifted(world: World, scope: string): Promise<void> {
  await world.until('the kill is lifted', async () => {
    const standing = await world.eye.store<{ id: string }>('SELECT id FROM mayfly.kills WHERE scope = $1', [scope]);
    const replies = await Promise.all(
      standing.map(({ id }) => post(world, `${KILL}/kill_${id}`, REASON, 'DELETE').catch(() => undefined)),
    );
    return replies.every((reply) => reply?.status === 200);
  });
}

/** An operator stops a task, and says so again: it has ended with what it held, and may ask for nothing. */
export const kill: Scenario = async (world) => {
  const task = await world.open();
  await world.hold(task);
  await world.hold(task, { entitlement: PAYMENTS });
  const body = { scope: 'task', id: task, ...REASON };
  return {
    act: () => post(world, KILL, body),
    after: async () => {
      await insist(world, KILL, body, '201', '200');
      const refused: unknown = await world
        .client()
        .issue(task, { entitlement: INVOICES })
        .catch((error: unknown) => error);
      if (!(refused instanceof ProblemError && refused.code === 'killed')) throw new Error('it is not stopped');
      await world.untilEnded(task);
      await lifted(world, 'task');
    },
  };
};

/** An operator lifts a kill, and says so again: it may be asked for. */
export const lift: Scenario = async (world) => {
  const task = await world.open();
  await insist(world, KILL, { scope: 'entitlement', id: PAYMENTS, ...REASON }, '201', '200');
  const [stands] = await world.eye.store<{ id: string }>('SELECT id FROM mayfly.kills WHERE lifted_at IS NULL');
  return {
    act: () => post(world, `${KILL}/kill_${stands?.id ?? ''}`, REASON, 'DELETE'),
    after: async () => {
      await lifted(world, 'entitlement');
      await world.hold(task, { entitlement: PAYMENTS });
    },
  };
};

/** The store may have forgotten kills: whoever lived through that confirms what stands, or an operator does. */
export const confirmKills: Scenario = async (world) => ({
  act: async () => {
    await world.eye.store('UPDATE mayfly.timeline SET changed_at = clock_timestamp()');
    await post(world, `${KILL}/confirm`, REASON);
  },
  after: () => issuesAgain(world),
});

/** An operator has looked at the kills, and says that they are all. Then agents get credentials again. */
export async function issuesAgain(world: World): Promise<void> {
  await insist(world, `${KILL}/confirm`, REASON, '200');
  await world.eye.store(
    'UPDATE mayfly.reconciliations SET claimed_until = clock_timestamp() WHERE claimed_until IS NOT NULL',
  );
  await world.hold(await world.patiently(() => world.open()));
}

/** An operator asks for a comparison with the store, and asks again. */
export const reconcile: Scenario = async (world) => ({
  act: () => askOn(world, `${TARGET}/reconcile`),
  after: async () => {
    // The claim of a dead broker's run holds for half a minute: let it be over.
    await world.eye.store(
      'UPDATE mayfly.reconciliations SET claimed_until = clock_timestamp() WHERE claimed_until IS NOT NULL',
    );
    await insist(world, `${TARGET}/reconcile?wait=20`, undefined, '200');
  },
});

/** An operator has the target checked, and checks again. */
export const check: Scenario = async (world) => ({
  act: () => askOn(world, `${TARGET}/check`),
  after: () => insist(world, `${TARGET}/check`, undefined, '200'),
});

/** An operator signs in with a browser, and begins again. */
export const signIn: Scenario = async (world) => {
  const { house } = world;
  const callback = `${house.url}/login/callback`;
  const provider = await startLoginProvider(callback, () => ['sre']);
  await applyLogin(house, provider, '{ sre: [viewer] }');
  const arrive = async () => {
    const browser = new Browser();
    const arrived = await browser.send(await browser.signIn(`${house.url}/login`, 'olga', callback));
    return arrived.status === 302 && (await browser.send(`${house.url}/v1/whoami`)).status === 200;
  };
  return {
    act: arrive,
    after: async () => {
      await world.until('there is a session', () => arrive().catch(() => false));
      await provider.stop();
      await house.broker.apply(house.files);
    },
  };
};

/** An operator signs out, and says so again. */
export const signOut: Scenario = async (world) => {
  const secret = randomUUID();
  await world.house.onStore(
    `INSERT INTO mayfly.operator_sessions (digest, source, subject, claims, created_at, expires_at)
      VALUES ($1, 'dev-operators', 'olga', '{}', clock_timestamp(), clock_timestamp() + interval '1 hour')`,
    [createHash('sha256').update(secret).digest()],
  );
  const headers = { cookie: `__Host-mayfly-session=${secret}`, origin: world.house.url };
  const leave = () => ask(world.url, 'POST', '/logout', { headers });
  return {
    act: leave,
    after: async () => {
      await world.until('the logout is answered', async () => (await leave().catch(() => undefined))?.status === 204);
      const left = await world.eye.store('SELECT FROM mayfly.operator_sessions WHERE source = $1', ['dev-operators']);
      if (left.length > 0) throw new Error('the session has not ended');
    },
  };
};
