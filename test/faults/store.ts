import { soon } from '../crash/verdict.ts';
import { stops } from '../crash/woken.ts';
import { INVOICES, plain, type World } from '../crash/world.ts';
import type { PostgresServer } from '../support/postgres-servers.ts';
import { startTcpProxy } from '../support/tcp-proxy.ts';
import { asSuperuser, type FaultLane, promote } from './lane.ts';

/** The store goes away between the intent and what a mint came to: the target has made what nobody could write down. */
export async function lostMidMint(world: World, { storeProxy, storeServer }: FaultLane): Promise<void> {
  const { broker } = world.house;
  const task = await world.open();
  await broker.fallAt(stops('mint.before'));
  const asked = world.client().issue(task, { entitlement: INVOICES });
  const refused = asked.then(
    () => new Error('a grant was delivered that nobody could write down'),
    () => undefined,
  );
  await soon(broker.reached('mint.before'), 'mint.before');
  const before = (await world.eye.look()).length;
  storeProxy.retarget(1);
  storeProxy.cut();
  world.away();
  try {
    await broker.signal('SIGCONT');
    await world.until('the target has made it', async () => (await world.eye.look()).length > before);
    const failure = await soon(refused, 'an answer');
    if (failure !== undefined) throw failure;
  } finally {
    storeProxy.retarget(storeServer.port);
    world.back();
  }
  await world.until('it is known, and gone', async () => {
    const fates = await world.eye.fates([plain(task)]);
    return fates.length === 1 && fates.every(({ state }) => state === 'revoked');
  });
}

/** A replica takes over that has never heard of the last moments: a grant, and a cancel that was answered. */
export async function forgetful(world: World, lane: FaultLane): Promise<void> {
  const way = await startTcpProxy(lane.storeServer.port);
  const standby = await lane.replicate(way.port);
  const [known, forgotten] = [await world.open(), await world.open()];
  await world.hold(known);
  await world.until(
    'the replica has it all',
    async () => (await replayed(standby)) >= (await written(lane.storeServer)),
  );
  await way.close();
  await world.until('the replica hears nothing more', async () => (await receivers(standby)) === 0);
  const { grant } = await world.hold(forgotten);
  await world.client().cancel(known, { wait: 20 });
  await lane.storeServer.halt();
  await promote(lane, standby);
  // At its start each target is compared with the store, by one of them; and again when no mint can be on its way any more.
  const replica = await world.house.startReplica();
  try {
    await world.until('nothing is left of the grant that was forgotten', async () =>
      (await world.eye.look()).every(({ handle }) => handle !== `mfy_${plain(grant.id).replaceAll('-', '')}`),
    );
    await world.patiently(() => world.client().cancel(known, { wait: 30 }));
    await world.untilEnded(known);
    const again = await world.patiently(() => world.open());
    await world.patiently(() => world.hold(again));
  } finally {
    await replica.stop();
  }
}

const written = (server: PostgresServer) => number(server, `SELECT (pg_current_wal_lsn() - '0/0')::float8 AS n`);
const replayed = (server: PostgresServer) => number(server, `SELECT (pg_last_wal_replay_lsn() - '0/0')::float8 AS n`);
const receivers = (server: PostgresServer) => number(server, 'SELECT count(*)::float8 AS n FROM pg_stat_wal_receiver');

async function number(server: PostgresServer, text: string): Promise<number> {
  const [row] = await asSuperuser<{ n: number }>(server, 'postgres', text);
  return row?.n ?? 0;
}
