import { randomUUID } from 'node:crypto';
import { mintUnknown, roleOf } from '../support/reconcile.ts';
import { dropByHand } from './operated.ts';
import type { Scenario } from './scenarios.ts';
import { plain, type World } from './world.ts';

/** The claim of a dead broker's run holds for half a minute: let it be over. */
async function runLapses({ eye }: World): Promise<void> {
  await eye.store(
    'UPDATE mayfly.reconciliations SET claimed_until = clock_timestamp() WHERE claimed_until IS NOT NULL',
  );
}

async function isClean({ eye }: World, grantId: string): Promise<boolean> {
  return (await eye.fates()).some(({ id, revocation }) => id === grantId && revocation === 'clean');
}

/** A broker starts with something in the target that bears its mark, and is unknown here for long. */
export const orphan: Scenario = async (world) => {
  await world.kill();
  await runLapses(world);
  const id = await mintUnknown(world.house);
  await world.eye.store(
    `INSERT INTO mayfly.orphan_sightings (target, handle, first_seen_at) VALUES ('ledger-db', $1, clock_timestamp() - interval '1 hour')`,
    [roleOf(id)],
  );
  return {
    after: async () => {
      await runLapses(world);
      await world.until('the orphan is gone', () => isClean(world, id));
    },
  };
};

/** A broker starts with something in the target that was gone, as after a restore. */
export const returned: Scenario = async (world) => {
  const task = await world.open();
  const id = plain((await world.hold(task)).grant.id);
  const role = roleOf(id);
  const [kept] = await world.eye.target('SELECT to_jsonb(h) AS row FROM mayfly.handle h WHERE handle = $1', [role]);
  await world.client().cancel(task, { wait: 20 });
  await world.until('it is gone', () => isClean(world, id));
  await world.kill();
  await runLapses(world);
  const { installation } = world.house.broker;
  const template = `mayfly_t_read_invoices${world.house.targetDatabase.replace('ledger', '')}`;
  await world.eye.target(`CREATE ROLE ${role} LOGIN IN ROLE ${template}`);
  await world.eye.target(
    `DO $$ BEGIN EXECUTE format('COMMENT ON ROLE ${role} IS %L', mayfly.mark('${installation}', '${id}')); END $$`,
  );
  await world.eye.target('DELETE FROM mayfly.handle WHERE handle = $1', [role]);
  await world.eye.target(
    `INSERT INTO mayfly.handle
     SELECT * FROM jsonb_populate_record(NULL::mayfly.handle, $1::jsonb || jsonb_build_object('role_oid', '${role}'::regrole::oid))`,
    [JSON.stringify(kept?.['row'])],
  );
  return {
    after: async () => {
      await runLapses(world);
      await world.until('it was seen again', async () => (await told(world, 'revocation.returned', id)) === 1);
      await world.until('it is gone again', () => isClean(world, id));
    },
  };
};

/** A broker starts with a living grant that somebody took out of the target. */
export const lost: Scenario = async (world) => {
  const task = await world.open();
  const id = plain((await world.hold(task)).grant.id);
  await world.kill();
  await runLapses(world);
  await dropByHand(world, roleOf(id));
  return {
    after: async () => {
      await runLapses(world);
      await world.until('it is told', async () => (await told(world, 'grant.lost', id)) > 0);
      await world.client().cancel(task, { wait: 20 });
      await world.untilEnded(task);
    },
  };
};

/** A broker starts with a living grant whose credential somebody changed in the target. */
export const changed: Scenario = async (world) => {
  const task = await world.open();
  const [id, staying] = [plain((await world.hold(task)).grant.id), await world.hold(task)];
  await world.kill();
  await runLapses(world);
  await world.eye.target(`ALTER ROLE ${roleOf(id)} CREATEDB`);
  return {
    after: async () => {
      await runLapses(world);
      await world.until('it is taken back', () => isClean(world, id));
      await world.use(staying);
    },
  };
};

async function told({ eye }: World, type: string, grantId: string): Promise<number> {
  const rows = await eye.store('SELECT FROM mayfly.audit_events WHERE type = $1 AND grant_id = $2', [type, grantId]);
  return rows.length;
}

/** It holds the target, and goes on: a grant can be made and ended. */
async function holds(world: World): Promise<void> {
  const task = await world.patiently(() => world.open());
  await world.hold(task);
  await world.client().complete(task, { wait: 30 });
  await world.untilEnded(task);
}

/** A broker holds the target from beat to beat. */
export const holding: Scenario = async (world) => ({ act: async () => {}, after: () => holds(world) });

/** A broker starts, and nobody holds the target yet. */
export const unheld: Scenario = async (world) => {
  await world.kill();
  await world.eye.target('UPDATE mayfly.installation SET tenure = NULL, store = NULL, beat = 0');
  return { after: () => holds(world) };
};

/** Another broker goes on with the tenure: this one does nothing there any more, until the target is adopted. */
export const rival: Scenario = async (world) => {
  const [held] = await world.eye.target<{ tenure: string }>('SELECT tenure FROM mayfly.installation');
  const strangerTold = `SELECT FROM mayfly.audit_events WHERE type = 'target.held_elsewhere'`;
  const before = (await world.eye.store(strangerTold)).length;
  const beating = setInterval(() => {
    const beat = world.eye.target('UPDATE mayfly.installation SET beat = beat + 10');
    beat.catch(() => clearInterval(beating));
  }, 500);
  return {
    act: async () => {},
    after: async () => {
      try {
        await world.until('it knows that it is a stranger', async () => {
          const lostTenure = 'SELECT FROM mayfly.tenures WHERE tenure = $1 AND lost_at IS NOT NULL';
          const gone = (await world.eye.store(lostTenure, [held?.tenure])).length > 0;
          return gone && (await world.eye.store(strangerTold)).length > before;
        });
        const task = await world.patiently(() => world.open());
        const made = await world
          .client()
          .issue(task, { entitlement: 'ledger-db/read-invoices' })
          .catch(() => undefined);
        if (made !== undefined) throw new Error('a stranger made a credential');
      } finally {
        clearInterval(beating);
      }
      await adopt(world);
      await holds(world);
    },
  };
};

/** What `mayfly target adopt` does. */
async function adopt({ eye }: World): Promise<void> {
  const tenure = randomUUID();
  await eye.store(
    `INSERT INTO mayfly.tenures (tenure, target, beat, beat_at) VALUES ($1, 'ledger-db', 1, clock_timestamp())`,
    [tenure],
  );
  await eye.target('UPDATE mayfly.installation SET epoch = epoch + 1, tenure = $1, beat = 0', [tenure]);
}
