import { issuesAgain } from './operated.ts';
import { roleOf } from '../support/reconcile.ts';
import type { Scenario } from './scenarios.ts';
import { plain, type World } from './world.ts';

async function told({ eye }: World, type: string): Promise<number> {
  return (await eye.store('SELECT FROM mayfly.audit_events WHERE type = $1', [type])).length;
}

/** The store finds itself on another timeline than the one it knew, as after a failover. It is told once, and goes on. */
export const failedOver: Scenario = async (world) => {
  const before = await told(world, 'store.failed_over');
  return {
    act: () => world.eye.store('UPDATE mayfly.timeline SET timeline = timeline - 1'),
    after: async () => {
      await world.eye.store('UPDATE mayfly.reconciliations SET claimed_until = clock_timestamp()');
      await world.until('it is told once', async () => (await told(world, 'store.failed_over')) === before + 1);
      await issuesAgain(world);
      if ((await told(world, 'store.failed_over')) !== before + 1) throw new Error('it was told again');
    },
  };
};

/** What was contained and not cleaned yet can log in again when a broker starts. No comparison finds it first: its run is in other hands. */
export const livesAgain: Scenario = async (world) => {
  const task = await world.open();
  const id = plain((await world.hold(task)).grant.id);
  const { broker } = world.house;
  await broker.fallAt([{ step: 'reap.before', signal: 'SIGKILL' }]);
  const cancelled = world
    .client()
    .cancel(task)
    .catch(() => {});
  await broker.reached('reap.before');
  await world.kill();
  await cancelled;
  await world.eye.target(`ALTER ROLE ${roleOf(id)} LOGIN`);
  await world.eye.store(
    `UPDATE mayfly.reconciliations SET claimed_by = 'nobody', claimed_until = clock_timestamp() + interval '10 minutes'`,
  );
  await world.eye.store(`UPDATE mayfly.revocations SET try_at = clock_timestamp() WHERE state = 'contained'`);
  return {
    after: async () => {
      await world.eye.store('UPDATE mayfly.reconciliations SET claimed_until = clock_timestamp()');
      await world.until('it is told', async () => {
        const rows = await world.eye.store<{ type: string }>(
          'SELECT type FROM mayfly.audit_events WHERE grant_id = $1',
          [id],
        );
        return rows.filter(({ type }) => type === 'revocation.returned').length === 1;
      });
      await world.untilEnded(task);
    },
  };
};

const tables = ['audit_events', 'revocations', 'grants', 'tasks'];

async function fill({ eye }: World): Promise<void> {
  await eye.store(`CREATE FUNCTION mayfly.disk_full() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    RAISE EXCEPTION 'could not extend file: No space left on device' USING ERRCODE = '53100'; END $$`);
  for (const table of tables)
    await eye.store(
      `CREATE TRIGGER disk_full BEFORE INSERT OR UPDATE ON mayfly.${table} FOR EACH STATEMENT EXECUTE FUNCTION mayfly.disk_full()`,
    );
}

async function empty({ eye }: World): Promise<void> {
  await eye.store('DROP FUNCTION IF EXISTS mayfly.disk_full() CASCADE');
}

async function isCut({ eye }: World, role: string): Promise<boolean> {
  return (await eye.look()).every(({ handle, live }) => handle !== role || !live);
}

async function atDeadline(world: World): Promise<{ role: string; after: () => Promise<void> }> {
  const task = await world.open();
  const { grant } = await world.hold(task, { ttl_seconds: 3 });
  const role = roleOf(plain(grant.id));
  return {
    role,
    after: async () => {
      try {
        await world.until('it is cut', () => isCut(world, role));
      } finally {
        await empty(world);
      }
      await world.untilEnded(task);
    },
  };
}

/** A grant comes to its deadline while the store takes nothing: it is fenced all the same, and recorded when the store takes it. */
export const storeFull: Scenario = async (world) => {
  const { after } = await atDeadline(world);
  return { act: () => fill(world), after };
};

/** The store takes something again, and is told what was fenced meanwhile. */
export const storeEmptied: Scenario = async (world) => {
  const { role, after } = await atDeadline(world);
  return {
    act: async () => {
      await fill(world);
      await world.until('it is fenced', () => isCut(world, role));
      await empty(world);
    },
    after,
  };
};
