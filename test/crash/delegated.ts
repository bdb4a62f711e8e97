import { randomUUID } from 'node:crypto';
import { AgentKey } from '../../src/client/index.ts';
import { eventOf } from '../support/delegating.ts';
import type { Scenario } from './scenarios.ts';
import { INVOICES, type World } from './world.ts';

/** A task whose agent has a key, and a delegation of it to another key of the same workload. */
async function delegating(world: World) {
  const [owner, other] = [await AgentKey.make(), await AgentKey.make()];
  const request = await world.house.sign({
    ...{ externalId: `crash-${randomUUID()}`, phase: 'execute', keyThumbprint: owner.thumbprint, maxDepth: 1 },
  });
  const parent = world.client(undefined, owner);
  const { task } = await parent.openTask(request);
  const delegation = await owner.delegate({
    ...{ broker: world.house.url, parent: task.id, workload: 'agent-recon', keyThumbprint: other.thumbprint },
    ...{ purpose: task.purpose, entitlements: [INVOICES], notAfter: new Date(task.not_after), seconds: 300 },
  });
  return { parent, task, delegation, child: world.client(undefined, other) };
}

/** The same delegation again offers the same child. It ends with its parent. */
export const delegate: Scenario = async (world) => {
  const { parent, task, delegation, child } = await delegating(world);
  const ask = () => parent.delegate(task.id, delegation);
  return {
    act: ask,
    after: async () => {
      const { task: offered } = await world.patiently(ask);
      const held = await world.patiently(() => parent.task(task.id));
      if (held.children.length !== 1) throw new Error(`it has ${held.children.length} children`);
      await world.patiently(() => child.claim(offered.id));
      await child.issue(offered.id, { entitlement: INVOICES });
      await parent.complete(task.id, { wait: 20 });
      await world.untilEnded(task.id, offered.id);
    },
  };
};

/** Claimed again it is the same task, and works. */
export const claim: Scenario = async (world) => {
  const { parent, task, delegation, child } = await delegating(world);
  const { task: offered } = await parent.delegate(task.id, delegation);
  const ask = () => child.claim(offered.id);
  return {
    act: ask,
    after: async () => {
      await world.patiently(ask);
      await child.issue(offered.id, { entitlement: INVOICES });
      await parent.cancel(task.id, { wait: 20 });
      await world.untilEnded(task.id, offered.id);
    },
  };
};

/** The issuer's word about a phase is said again: it moves the task once. */
export const move: Scenario = async (world) => {
  const { parent, task } = await delegating(world);
  const event = await eventOf(world.house, task.id, { op: 'phase', phase: 'closing' });
  const ask = () => parent.tell(task.id, event);
  return {
    act: ask,
    after: async () => {
      const { task: moved } = await world.patiently(ask);
      if (moved.phase !== 'closing') throw new Error(`it is in the phase ${moved.phase}`);
      await parent.complete(task.id);
    },
  };
};

/** The issuer's word that ends a task with a child is said again: both have ended, and what they held. */
export const told: Scenario = async (world) => {
  const { parent, task, delegation, child } = await delegating(world);
  const { task: offered } = await parent.delegate(task.id, delegation);
  await child.claim(offered.id);
  await child.issue(offered.id, { entitlement: INVOICES });
  const event = await eventOf(world.house, task.id, { op: 'complete' });
  const ask = () => parent.tell(task.id, event, { wait: 20 });
  return {
    act: ask,
    after: async () => {
      const { task: ended } = await world.patiently(ask);
      if (ended.state !== 'completed') throw new Error(`the task is ${ended.state}`);
      await world.untilEnded(task.id, offered.id);
    },
  };
};
