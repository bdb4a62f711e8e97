import type { PostgresServer } from '../support/postgres-servers.ts';
import type { TcpProxy } from '../support/tcp-proxy.ts';
import type { Fault } from './fault.ts';
import { asSuperuser, type FaultLane, promote } from './lane.ts';

/** How long Redis is gone. */
const OUTAGE_MILLIS = Number(process.env['MAYFLY_FAULT_OUTAGE'] ?? 30) * 1000;

/** The store's connections that hang are given up after so long: `query_timeout`. */
const STORE_HANGS = 20_000;

/** A call to a target is given up after so long. */
const TARGET_HANGS = 16_000;

/** A system that stands behind a proxy. */
export interface System {
  readonly proxy: (lane: FaultLane) => TcpProxy;
  readonly port: (lane: FaultLane) => number;
  /** Its faults do no harm. */
  readonly harmless: boolean;
  /** Without it deadlines are kept. */
  readonly spared?: true;
  /** Milliseconds until connections to it that hang are given up. */
  readonly hangs: number;
  /** Of each piece. */
  readonly delayMillis: number;
}

const redisOf = ({ redis }: FaultLane) => {
  if (redis === undefined) throw new Error('there is no Redis in this lane');
  return redis;
};

export const systems: Readonly<Record<'target' | 'store' | 'redis', System>> = {
  target: {
    ...{ proxy: (lane) => lane.proxy, port: (lane) => lane.house.targetServer.port },
    ...{ harmless: false, hangs: TARGET_HANGS, delayMillis: 300 },
  },
  store: {
    ...{ proxy: (lane) => lane.storeProxy, port: (lane) => lane.storeServer.port },
    ...{ harmless: false, spared: true, hangs: STORE_HANGS, delayMillis: 60 },
  },
  redis: {
    ...{ proxy: (lane) => redisOf(lane).proxy, port: (lane) => Number(new URL(redisOf(lane).server.url).port) },
    ...{ harmless: true, hangs: 0, delayMillis: 300 },
  },
};

/** What a network does to the way there. */
export function networkFaults(system: System): Readonly<Record<string, Fault>> {
  const { proxy, port, hangs, delayMillis } = system;
  const harmless = system.harmless ? ({ harmless: true } as const) : {};
  const spared = system.spared === true ? ({ keepsDeadlines: true } as const) : {};
  const resets = new Map<FaultLane, NodeJS.Timeout>();
  const healing = {
    ...harmless,
    ...spared,
    end: async (lane: FaultLane) => {
      clearInterval(resets.get(lane));
      proxy(lane).retarget(port(lane));
      proxy(lane).heal();
    },
  };
  return {
    delay: { ...healing, harmless: true, begin: async (lane) => proxy(lane).delay(delayMillis) },
    cut: {
      ...healing,
      begin: async (lane) => {
        proxy(lane).retarget(1);
        proxy(lane).cut();
      },
    },
    'black hole': { ...healing, grace: hangs, begin: async (lane) => proxy(lane).blackHole() },
    'half-open': { ...healing, grace: hangs, begin: async (lane) => proxy(lane).halfOpen() },
    'reset mid-statement': {
      ...healing,
      begin: async (lane) => {
        proxy(lane).resetNext();
        resets.set(
          lane,
          setInterval(() => proxy(lane).resetNext(), 400),
        );
      },
    },
    'answers swallowed': { ...healing, grace: hangs, begin: async (lane) => proxy(lane).swallowAnswers() },
  };
}

export const flushed: Fault = {
  harmless: true,
  begin: async (lane) => redisOf(lane).server.flush(),
  end: async () => {},
};

export const redisGone: Fault = {
  ...{ harmless: true, lasts: OUTAGE_MILLIS },
  begin: async (lane) => redisOf(lane).server.kill(),
  end: async (lane) => redisOf(lane).server.start(),
};

export const storeStopped: Fault = {
  keepsDeadlines: true,
  begin: async ({ storeServer }) => storeServer.halt(),
  end: async ({ storeServer }) => storeServer.restart(),
};

export const storeCrashed: Fault = {
  keepsDeadlines: true,
  begin: async ({ storeServer }) => storeServer.halt('immediate'),
  end: async ({ storeServer }) => storeServer.restart(),
};

/** A replica that has all of the store takes its place. */
export const storeFailedOver: Fault = {
  keepsDeadlines: true,
  prepare: async (lane) => {
    lane.standby = await lane.replicate(lane.storeServer.port);
  },
  begin: async (lane) => lane.storeServer.halt(),
  end: async (lane) => {
    if (lane.standby === undefined) throw new Error('no replica was made');
    await promote(lane, lane.standby);
  },
};

const fullTables = ['audit_events', 'revocations', 'grants', 'tasks'];

/**
 * What PostgreSQL says when its disk is full, raised by triggers: to fill a disk takes one to fill. What is written to the log ahead
 * is not met by it.
 */
export const storeFull: Fault = {
  keepsDeadlines: true,
  begin: async ({ storeServer, house }) => {
    const triggers = fullTables.map(
      (name) =>
        `CREATE TRIGGER disk_full BEFORE INSERT OR UPDATE ON mayfly.${name} FOR EACH STATEMENT EXECUTE FUNCTION public.disk_full();`,
    );
    await asSuperuser(
      storeServer,
      house.store.database,
      `CREATE FUNCTION public.disk_full() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
         RAISE EXCEPTION 'could not extend file: No space left on device' USING ERRCODE = '53100'; END $$;
       ${triggers.join('\n')}`,
    );
  },
  end: async ({ storeServer, house }) => {
    await asSuperuser(storeServer, house.store.database, 'DROP FUNCTION public.disk_full() CASCADE');
  },
};

/** Its one synchronous standby is dead: it answers whatever is asked, and no commit ever returns. */
export const storeHangs: Fault = {
  ...{ keepsDeadlines: true, grace: STORE_HANGS },
  begin: async ({ storeServer }) => waitForStandby(storeServer, `SET synchronous_standby_names = 'nobody'`),
  end: async ({ storeServer }) => waitForStandby(storeServer, 'RESET synchronous_standby_names'),
};

async function waitForStandby(server: PostgresServer, setting: string): Promise<void> {
  await asSuperuser(server, 'postgres', `ALTER SYSTEM ${setting}`);
  await asSuperuser(server, 'postgres', 'SELECT pg_reload_conf()');
}
