import { parseArgs } from 'node:util';
import { type Ledger, makeLedger, soon } from '../contract/postgres-fixture.ts';
import type { Ref } from '../../src/provider.ts';
import { type ContractMode, parseModes } from '../support/contract-modes.ts';
import { parseVersions } from '../support/postgres-binaries.ts';
import { type PostgresServer, startPostgres } from '../support/postgres-servers.ts';
import { seedLive } from './lib/live-roles.ts';
import { floorRound, type Round } from './lib/mint-floor.ts';
import { joined, measure, report, type Row } from './lib/report.ts';

/**
 * Minting and revoking through the provider's own session while so many other roles live in the target: `--levels`, `--modes`
 * and `--versions` (one) change what is measured. Beside each its floor, the same functions called straight through pg, and with
 * it the ratio. A level that a mode does not allow is told as a blank. One SCRAM iteration, since the server's 3 ms for 4096 would
 * hide the rest.
 */
const CONCURRENCY = 8;
const COUNT = 160;
const ROUNDS = 3;
/** Refs per fence, as a worker's batch. */
const BATCH = 20;

const { values } = parseArgs({
  options: {
    levels: { type: 'string', default: '0,1000,10000,50000' },
    modes: { type: 'string', default: 'definer,createrole,pool' },
    versions: { type: 'string', default: '18' },
    json: { type: 'string' },
  },
});
const levels = values.levels.split(',').map(Number);
const [version = 18] = parseVersions(values.versions);

/** A target in that mode, and how its live roles are made. */
interface Backend {
  readonly ledger: Ledger;
  /** Live roles that it can bear beside those of a round, or null. */
  readonly most: number | null;
  readonly seed: (count: number) => Promise<void>;
}
const backends: Readonly<Record<ContractMode, (server: PostgresServer) => Promise<Backend>>> = {
  definer: async (server) => {
    const ledger = await makeLedger(server, 'ledger', { maxLive: 100_000 });
    return { ledger, most: null, seed: (count) => seedLive(ledger, count) };
  },
  createrole: async (server) => {
    const maxRoles = 10_000;
    const ledger = await makeLedger(server, 'ledger', { maxLive: 100_000, managed: { mode: 'createrole', maxRoles } });
    return { ledger, most: maxRoles - COUNT, seed: (count) => seedLive(ledger, count) };
  },
  pool: async (server) => {
    // Before 18 a role rests for a minute after each grant: there is none left for the second round.
    if (version < 18) throw new Error('the mode pool is measured on 18');
    const poolSize = 500;
    const ledger = await makeLedger(server, 'ledger', { managed: { mode: 'pool', poolSize } });
    let live = 0;
    const seed = async (count: number): Promise<void> => {
      for (; live < count; live += 1) await ledger.mint({ deadline: new Date(Date.now() + 900_000) });
    };
    return { ledger, most: poolSize - COUNT, seed };
  },
};

const rows: Row[] = [];
const blanks: string[] = [];
for (const mode of parseModes(values.modes)) {
  const server = await startPostgres({
    version,
    settings: { fsync: 'on', full_page_writes: 'on', shared_buffers: '256MB', max_connections: 100 },
  });
  let ledger: Ledger | undefined;
  try {
    const backend = await backends[mode](server);
    ledger = backend.ledger;
    await runMode(mode, backend);
  } finally {
    await ledger?.close();
    await server.stop();
  }
}
report('live', rows);
for (const blank of blanks) console.log(`blank: ${blank}`);

async function runMode(mode: ContractMode, { ledger, seed, most }: Backend): Promise<void> {
  const session = ledger.connect({ scram_iterations: 1 });
  const clients = await Promise.all(Array.from({ length: CONCURRENCY }, () => ledger.stolenLogin()));
  const prefix = mode === 'definer' ? '' : `${mode} `;
  await round(ledger, session);
  const asked = levels.map((level) => Math.min(level, most ?? level));
  for (const level of levels.filter((each) => most !== null && each > most))
    blanks.push(`${prefix}live ${level}: this mode bears at most ${most} besides those of a round`);
  for (const level of [...new Set(asked)]) {
    await seed(level);
    const [ours, floors]: [Round[], Round[]] = [[], []];
    for (let count = 0; count < ROUNDS; count++) {
      floors.push(await floorRound(ledger, clients, COUNT, BATCH));
      ours.push(await round(ledger, session));
    }
    for (const what of ['mint', 'revoke'] as const) {
      const floor = joined(floors.map((each) => each[what]));
      const measured = joined(ours.map((each) => each[what]));
      const of = `${prefix}floor ${what} live ${level}`;
      const ratio = measured.value / floor.value;
      rows.push({ case: `${prefix}${what} live ${level}`, unit: 'roles/s', ...measured, ratio, of });
      rows.push({ case: of, unit: 'roles/s', ...floor });
    }
  }
  await session.close();
}

async function round(ledger: Ledger, session: Ledger['session']): Promise<Round> {
  const refs: Ref[] = [];
  const mint = await measure(COUNT, CONCURRENCY, async () => {
    const ref = ledger.ref();
    const { facts } = await session.mint(ref, ledger.request(ref), soon());
    refs.push({ ...ref, facts });
  });
  const batches = await measure(COUNT / BATCH, 1, async (index) => {
    const some = refs.slice(index * BATCH, (index + 1) * BATCH);
    const fenced = await session.fence(some, soon());
    const reaped = await session.reap(some, soon());
    const verdicts = await session.verify(some, soon());
    const clean = verdicts.every((verdict) => verdict.ok && verdict.clean);
    if (!clean || [...fenced, ...reaped].some(({ ok }) => !ok)) throw new Error('a role was not ended');
  });
  return { mint, revoke: { ...batches, perSecond: batches.perSecond * BATCH } };
}
