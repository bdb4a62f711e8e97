import { randomUUID } from 'node:crypto';
import { AgentKey, ProblemError } from '../../src/client/index.ts';
import type { Fall } from '../support/broker-process.ts';
import { INVOICES, PAYMENTS, plain, type World } from './world.ts';

/** What was prepared: the call in which the broker falls, and what its agent does afterwards. */
export interface Play {
  /** Ends in an error, or never. Without it the broker falls while it starts. */
  readonly act?: () => Promise<unknown>;
  /** At the broker that came back. Throws if what it answers is of no use. */
  readonly after: () => Promise<void>;
}

export type Scenario = (world: World) => Promise<Play>;

/** The same signed request again opens the same task. */
export const open: Scenario = async (world) => {
  const request = await world.house.sign({ externalId: `crash-${randomUUID()}` });
  const ask = () => world.client().openTask(request);
  return {
    act: ask,
    after: async () => {
      const { task } = await world.patiently(ask);
      await world.hold(task.id);
    },
  };
};

/** A proof that was spent for nothing costs its agent no more than another one. */
export const openByKey: Scenario = async (world) => {
  const key = await AgentKey.make();
  const request = await world.house.sign({ externalId: `crash-${randomUUID()}`, keyThumbprint: key.thumbprint });
  const ask = () => world.client(undefined, key).openTask(request);
  return {
    act: ask,
    after: async () => {
      const { task } = await world.patiently(ask);
      await world.client(undefined, key).complete(task.id);
    },
  };
};

/** The same key again is answered with a credential that works, and is the only one left. */
export const issue: Scenario = async (world) => {
  const task = await world.open();
  const key = randomUUID();
  return {
    act: () => world.client(key).issue(task, { entitlement: INVOICES }),
    after: async () => {
      const held = await world.patiently(() => world.hold(task, {}, key));
      await world.until('one grant is left', async () => {
        const fates = await world.eye.fates([plain(task)]);
        return fates.every(({ id, state }) => state === (id === plain(held.grant.id) ? 'active' : 'revoked'));
      });
      await world.use(held);
    },
  };
};

/** Nobody asks again: what was made ends by itself. */
export const issueAndLeave: Scenario = async (world) => {
  const task = await world.open();
  return {
    act: () => world.client().issue(task, { entitlement: INVOICES, ttl_seconds: 3 }),
    after: () => world.untilEnded(task),
  };
};

/** So many at once that some of them ask for the tree alone. */
export const crowd: Scenario = async (world) => {
  const task = await world.open();
  const ask = () => world.client().issue(task, { entitlement: INVOICES, ttl_seconds: 4 });
  return {
    act: () => Promise.all(Array.from({ length: 24 }, ask)),
    after: async () => {
      await world.untilEnded(task);
      await world.hold(task);
    },
  };
};

/** A key is used again, and again after the crash. */
export const replay: Scenario = async (world) => {
  const task = await world.open();
  const key = randomUUID();
  const first = await world.hold(task, {}, key);
  return {
    act: () => world.client(key).issue(task, { entitlement: INVOICES }),
    after: async () => {
      const held = await world.patiently(() => world.hold(task, {}, key));
      await world.until('the first grant is over', async () =>
        (await world.eye.fates([plain(task)])).some(
          ({ id, state }) => id === plain(first.grant.id) && state === 'revoked',
        ),
      );
      await world.use(held);
    },
  };
};

export const deny: Scenario = async (world) => {
  const task = await world.open({ phase: 'plan' });
  const ask = () => world.client().issue(task, { entitlement: PAYMENTS });
  return {
    act: ask,
    after: async () => {
      const answer: unknown = await world.patiently(ask).catch((error: unknown) => error);
      if (!(answer instanceof ProblemError) || answer.code !== 'denied_by_policy') throw new Error('it was not denied');
    },
  };
};

/** The target refuses to make it. */
export const refused: Scenario = async (world) => {
  const task = await world.open();
  const key = randomUUID();
  const [mint] = await world.eye.target<{ name: string; login: string }>(
    `SELECT p.oid::regprocedure::text AS name, quote_ident($1) AS login FROM pg_proc p WHERE p.pronamespace = 'mayfly'::regnamespace AND p.proname = 'mint'`,
    [`${world.house.targetDatabase}_broker`],
  );
  if (mint === undefined) throw new Error('the target has no function to refuse');
  return {
    act: async () => {
      await world.eye.target(`REVOKE EXECUTE ON FUNCTION ${mint.name} FROM ${mint.login}`);
      await world.client(key).issue(task, { entitlement: INVOICES });
    },
    after: async () => {
      await world.eye.target(`GRANT EXECUTE ON FUNCTION ${mint.name} TO ${mint.login}`);
      await world.patiently(() => world.hold(task, {}, key));
    },
  };
};

export const renew: Scenario = async (world) => {
  const task = await world.open();
  const held = await world.hold(task, { ttl_seconds: 60 });
  const ask = () => world.client().renew(held.grant.id, 120);
  return {
    act: ask,
    after: async () => {
      const { grant } = await world.patiently(ask);
      if (grant.deadline <= held.grant.deadline) throw new Error('it was not renewed');
      await world.use(held);
    },
  };
};

/** Nobody asks again: it ends at the deadline that the store knows, whatever the target was told. */
export const renewAndLeave: Scenario = async (world) => {
  const task = await world.open();
  const held = await world.hold(task, { ttl_seconds: 4 });
  return { act: () => world.client().renew(held.grant.id, 7), after: () => world.untilEnded(task) };
};

/** A task of two grants is cancelled, and cancelled again. */
export const cancel: Scenario = async (world) => {
  const task = await world.open();
  await world.hold(task);
  await world.hold(task, { entitlement: PAYMENTS });
  return {
    act: () => world.client().cancel(task, { wait: 20 }),
    after: async () => {
      const { revocations } = await world.patiently(() => world.client().cancel(task, { wait: 30 }));
      if (revocations.length < 2 || !revocations.every(({ state }) => state === 'contained' || state === 'clean'))
        throw new Error(`the answer is of no use: ${JSON.stringify(revocations)}`);
    },
  };
};

export const complete: Scenario = async (world) => {
  const task = await world.open();
  await world.hold(task);
  const ask = () => world.client().complete(task, { wait: 30 });
  return {
    act: ask,
    after: async () => {
      const { task: body } = await world.patiently(ask);
      if (body.state !== 'completed') throw new Error(`the task is ${body.state}`);
    },
  };
};

export const release: Scenario = async (world) => {
  const task = await world.open();
  const held = await world.hold(task);
  const other = await world.hold(task);
  const ask = async () => {
    const answer = await fetch(`${world.url}/v1/grants/${held.grant.id}?wait=20`, {
      method: 'DELETE',
      headers: { authorization: `Bearer ${await world.house.token()}` },
    });
    if (answer.status !== 200) throw new Error(`the answer is ${answer.status}`);
  };
  return {
    act: ask,
    after: async () => {
      await world.patiently(ask);
      await world.use(other);
    },
  };
};

/** A grant comes to its deadline. */
export const expiry: Scenario = async (world) => {
  const task = await world.open();
  await world.hold(task, { ttl_seconds: 3 });
  return { act: () => world.untilEnded(task), after: () => world.untilEnded(task) };
};

/** A task comes to its deadline. */
export const taskExpiry: Scenario = async (world) => {
  const task = await world.open({ ttl: 4 });
  await world.hold(task);
  const over = () => world.until('the task is over', () => world.isEnded(task));
  return {
    act: over,
    after: async () => {
      await over();
      await world.untilEnded(task);
    },
  };
};

/** Applied again it is the active revision, and answers. */
export const apply: Scenario = async (world) => {
  const policies = world.house.files['policies/test.cedar'] ?? '';
  const mark = randomUUID();
  const files = { ...world.house.files, 'policies/test.cedar': `${policies}\n// ${mark}\n` };
  const ask = () => world.house.broker.apply(files);
  return {
    act: ask,
    after: async () => {
      await ask();
      const [active] = await world.eye.store<{ files: unknown }>(
        'SELECT files FROM mayfly.catalog_revisions r JOIN mayfly.catalog_active a ON a.revision = r.number',
      );
      if (!JSON.stringify(active?.files).includes(mark)) throw new Error('another revision is active');
      const task = await world.patiently(() => world.open());
      await world.patiently(() => world.hold(task));
    },
  };
};

/** Cuts the way to the target: each call fails at once. */
export function cutOff(world: World): void {
  world.proxy.retarget(1);
  world.proxy.cut();
}

export function heal(world: World): void {
  world.proxy.retarget(world.house.targetServer.port);
  world.proxy.heal();
}

/** The target can not be reached when a task is cancelled. */
export const unreachable: Scenario = async (world) => {
  const play = await cancel(world);
  return {
    ...play,
    act: async () => {
      cutOff(world);
      await play.act?.();
    },
    after: async () => {
      heal(world);
      await play.after();
    },
  };
};

/** The target is so slow that claims must be kept. */
export const slow: Scenario = async (world) => {
  const play = await cancel(world);
  return {
    ...play,
    act: async () => {
      world.proxy.delay(700);
      await play.act?.();
    },
    after: async () => {
      heal(world);
      await play.after();
    },
  };
};

/** Falls at that step, and stays dead. */
async function dieAt(world: World, fall: Fall, act: (() => Promise<unknown>) | undefined): Promise<void> {
  await world.house.broker.fallAt([fall]);
  const cut = act?.().catch(() => {});
  await world.house.broker.reached(fall.step);
  await world.kill();
  await cut;
}

/** A broker starts after another died with claims, and their time is over. */
export const lostClaims: Scenario = async (world) => {
  const play = await cancel(world);
  await dieAt(world, { step: 'claim.after', signal: 'SIGKILL' }, play.act);
  await world.until('the claims are lost', async () => {
    const rows = await world.eye.store(
      `SELECT 1 FROM mayfly.revocations WHERE state = 'running' AND claimed_until <= clock_timestamp()`,
    );
    return rows.length > 0;
  });
  return { after: play.after };
};

/** A broker starts after another died before it could begin. */
export const unbegun: Scenario = async (world) => {
  const play = await cancel(world);
  await dieAt(world, { step: 'end.after', signal: 'SIGKILL' }, play.act);
  return { after: play.after };
};

/** A broker starts when a task came to its deadline while nobody was there. */
export const expiredMeanwhile: Scenario = async (world) => {
  const play = await taskExpiry(world);
  await world.kill();
  await world.until('the deadline has passed', async () => {
    const rows = await world.eye.store(
      `SELECT 1 FROM mayfly.tasks WHERE state = 'active' AND not_after <= clock_timestamp()`,
    );
    return rows.length > 0;
  });
  return { after: play.after };
};

/** A broker starts while what is due has waited too long, and the target is away. */
export const late: Scenario = async (world) => {
  const play = await cancel(world);
  cutOff(world);
  await dieAt(world, { step: 'end.after', signal: 'SIGKILL' }, play.act);
  await world.until('it is overdue', async () => {
    const rows = await world.eye.store(
      `SELECT 1 FROM mayfly.revocations WHERE state = 'due' AND due_at <= clock_timestamp() - interval '2.1 seconds'`,
    );
    return rows.length > 0;
  });
  return {
    after: async () => {
      heal(world);
      await play.after();
    },
  };
};

/** A broker starts with a deadline before it that no alarm stands for. */
export const unfed: Scenario = async (world) => {
  const task = await world.open();
  await world.hold(task, { ttl_seconds: 6 });
  await world.kill();
  return { after: () => world.untilEnded(task) };
};

/** A broker starts with used proofs before it that nobody takes any more. */
export const oldProofs: Scenario = async (world) => {
  await world.kill();
  await world.house.onStore(
    `INSERT INTO mayfly.dpop_proofs SELECT sha256(n::text::bytea), clock_timestamp() - interval '1 second' FROM generate_series(1, 10) n`,
  );
  return {
    after: () =>
      world.until('they are forgotten', async () => {
        const rows = await world.eye.store('SELECT 1 FROM mayfly.dpop_proofs WHERE forget_at <= clock_timestamp()');
        return rows.length === 0;
      }),
  };
};
