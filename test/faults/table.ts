import { undone } from '../crash/woken.ts';
import type { World } from '../crash/world.ts';
import { type Fault, under } from './fault.ts';
import * as fault from './faults.ts';
import type { FaultLane } from './lane.ts';
import { stale, wrongClock } from './replicas.ts';
import { forgetful, lostMidMint } from './store.ts';

type Backend = 'postgres' | 'redis';

/** A case by its name: `target: black hole`. */
export interface Case {
  readonly name: string;
  readonly run: (world: World, lane: FaultLane) => Promise<void>;
  /** Where there is no Redis there is nothing to break. */
  readonly only?: Backend;
}

const TEN_MINUTES = 600_000;

const asCase = (name: string, what: Fault): Case => ({ name, run: (world, lane) => under(what, world, lane) });
const onWayTo = (name: keyof typeof fault.systems): Case[] =>
  Object.entries(fault.networkFaults(fault.systems[name])).map(([says, what]) => asCase(`${name}: ${says}`, what));
const onlyRedis = (one: Case): Case => ({ ...one, only: 'redis' });

/** Every case: what a network does to each of three ways, what becomes of Redis and the store, and what replicas do. */
const cases: readonly Case[] = [
  ...onWayTo('target'),
  ...onWayTo('store'),
  ...onWayTo('redis').map(onlyRedis),
  onlyRedis(asCase('redis: flushed', fault.flushed)),
  onlyRedis(asCase('redis: gone', fault.redisGone)),
  asCase('store: stopped and started', fault.storeStopped),
  asCase('store: crashed', fault.storeCrashed),
  asCase('store: full', fault.storeFull),
  asCase('store: its commits hang', fault.storeHangs),
  asCase('store: failed over to a replica', fault.storeFailedOver),
  { name: 'store: failed over to a replica that has forgotten the last moments', run: forgetful },
  { name: 'store: lost while a mint is under way', run: lostMidMint },
  { name: 'a clock ten minutes ahead', run: (world) => wrongClock(TEN_MINUTES, world) },
  { name: 'a clock ten minutes behind', run: (world) => wrongClock(-TEN_MINUTES, world) },
  { name: 'two replicas, one asleep with a claim', run: (world) => stale(2, world) },
  { name: 'five replicas, one asleep with a claim', run: (world) => stale(5, world) },
  { name: 'asleep after a fence, which is undone', run: undone },
];

export function casesOf(backend: Backend): readonly Case[] {
  return cases.filter(({ only }) => only === undefined || only === backend);
}

/** The few that `npm test` runs, with alarms in the store. */
export const fewCases: readonly string[] = [
  'target: answers swallowed',
  'store: crashed',
  'store: full',
  'store: lost while a mint is under way',
  'two replicas, one asleep with a claim',
];
