import { randomUUID } from 'node:crypto';
import { ask } from '../support/ask.ts';
import type { Scenario } from './scenarios.ts';
import { PAYMENTS, plain, type World } from './world.ts';

const AGENT = 'agent-recon';
const USER = { issuer: 'dev-orchestrator', user: 'user:kim' };

/** The source may say everything, and what it says of users suspends. */
async function listening(world: World): Promise<void> {
  const { files } = world.house;
  const forbid = `@id("risky") forbid (principal is Mayfly::Task, action, resource == Mayfly::Entitlement::"${PAYMENTS}") when { principal.workload.risk == "high" };`;
  await world.house.broker.apply({
    ...files,
    'trust.yaml': `${files['trust.yaml'] ?? ''}
signal_sources:
  - { name: risk, workloads: ["dev:risk-engine"], proof_of_possession: none, kinds: [workload_risk, user], suspends: [user], max_age_seconds: 300 }
`,
    'policies/test.cedar': `${files['policies/test.cedar'] ?? ''}\n${forbid}\n`,
  });
}

async function tell(world: World, body: object): Promise<void> {
  const token = await world.house.token('risk-engine');
  const reply = await ask(world.url, 'POST', '/v1/signals', { token, body });
  if (reply.status !== 200) throw new Error(`the signal was answered ${reply.status}: ${reply.text}`);
}

const said = (more: object) => ({ id: randomUUID(), occurred_at: new Date().toISOString(), ...more });
const risk = (level: string, more: object = {}) =>
  said({ kind: 'workload_risk', subject: { workload: `dev:${AGENT}` }, level, ...more });
const user = (state: string) => said({ kind: 'user', subject: USER, state });

/** Answered again, once the broker is back: the same signal is the same. */
async function insist(world: World, asking: () => Promise<void>): Promise<void> {
  await world.until('it is answered', () =>
    asking().then(
      () => true,
      () => false,
    ),
  );
}

const isRevoked = (world: World, task: string, grant: string) => async () =>
  (await world.eye.fates([plain(task)])).some(({ id, state }) => id === plain(grant) && state === 'revoked');

/** Of two grants one is not permitted any more: it ends, whoever was there to hear of it. */
export const signal: Scenario = async (world) => {
  await listening(world);
  const task = await world.open();
  const staying = await world.hold(task);
  const ending = await world.hold(task, { entitlement: PAYMENTS });
  const body = risk('high');
  return {
    act: () => tell(world, body),
    after: async () => {
      await insist(world, () => tell(world, body));
      await world.until('the risky one is revoked', isRevoked(world, task, ending.grant.id));
      await world.use(staying);
      await insist(world, () => tell(world, risk('low')));
      await world.use(await world.patiently(() => world.hold(task, { entitlement: PAYMENTS })));
      await world.house.broker.apply(world.house.files);
    },
  };
};

/** All of a user's tasks stand still with all that they hold, and go on at the opposite word; those of others notice nothing. */
export const suspend: Scenario = async (world) => {
  await listening(world);
  const task = await world.open({ subject: USER.user });
  await world.hold(task);
  const body = user('disabled');
  return {
    act: () => tell(world, body),
    after: async () => {
      await insist(world, () => tell(world, body));
      await world.untilEnded(task);
      await insist(world, () => tell(world, user('enabled')));
      await world.use(await world.patiently(() => world.hold(task)));
      await world.house.broker.apply(world.house.files);
    },
  };
};

/** What a word that expired had kept from it may be asked for; what lives was decided again. */
export const lapse: Scenario = async (world) => {
  await listening(world);
  const task = await world.open();
  const staying = await world.hold(task);
  return {
    act: async () => {
      await tell(world, risk('high', { expires_at: new Date(Date.now() + 1_500).toISOString() }));
      // By now the sweep takes note of it, and falls.
      await new Promise((resolve) => setTimeout(resolve, 30_000));
    },
    after: async () => {
      await world.until('it has lapsed', async () => {
        const standing = await world.eye.store<{ lapsed: boolean }>(
          'SELECT lapsed FROM mayfly.signals_standing WHERE expires_at IS NOT NULL',
          [],
        );
        return standing.every(({ lapsed }) => lapsed);
      });
      await world.use(staying);
      await world.use(await world.patiently(() => world.hold(task, { entitlement: PAYMENTS })));
      await world.house.broker.apply(world.house.files);
    },
  };
};

async function operate(world: World, task: string, word: 'suspend' | 'resume'): Promise<void> {
  const { token } = await world.house.issuer.signOperatorToken({
    ...{ subject: 'olga', roles: ['operator'], audience: world.house.url, ttl_seconds: 900 },
  });
  const reply = await ask(world.url, 'POST', `/v1/tasks/${task}/${word}`, { token, body: { reason: 'a crash' } });
  if (reply.status !== 200) throw new Error(`it was answered ${reply.status}: ${reply.text}`);
}

export const suspendTask: Scenario = async (world) => {
  const task = await world.open();
  await world.hold(task);
  return {
    act: () => operate(world, task, 'suspend'),
    after: async () => {
      await insist(world, () => operate(world, task, 'suspend'));
      await world.untilEnded(task);
      await insist(world, () => operate(world, task, 'resume'));
      await world.use(await world.patiently(() => world.hold(task)));
    },
  };
};

export const resumeTask: Scenario = async (world) => {
  const task = await world.open();
  await operate(world, task, 'suspend');
  return {
    act: () => operate(world, task, 'resume'),
    after: async () => {
      await insist(world, () => operate(world, task, 'resume'));
      await world.use(await world.patiently(() => world.hold(task)));
    },
  };
};
