import { parseArgs } from 'node:util';
import { type Ledger, makeLedger, soon } from '../contract/postgres-fixture.ts';
import type { Ref } from '../../src/provider.ts';
import { type ContractMode, parseModes } from '../support/contract-modes.ts';
import { parseVersions } from '../support/postgres-binaries.ts';
import { type PostgresServer, startPostgres } from '../support/postgres-servers.ts';
import { seedLive } from './lib/live-roles.ts';
import { joined, type Measured, measure, report, type Row } from './lib/report.ts';

/**
 * Minting and revoking through the provider's own session while so many other roles live in the target: `--levels`, `--modes`
 * and `--versions` (one) change what is measured. The ratio is to the same mode without live roles in the same run.
 * One SCRAM iteration, since the server's 3 ms for 4096 would hide the rest.
 */
const CONCURRENCY = 8;
const COUNT = 160;
const ROUNDS = 3;
/** Refs per fence, as a worker's batch. */
const BATCH = 20;

const { values } = parseArgs({
  options: {
    levels: { type: 'string', default: '0,1000,10000,50000' },
    modes: { type: 'string', default: 'definer' },
    versions: { type: 'string', default: '18' },
    json: { type: 'string' },
  },
});
const levels = values.levels.split(',').map(Number);
const [version = 18] = parseVersions(values.versions);

/** A target with that mode's session, and how its live roles are made. */
interface Backend {
  readonly ledger: Ledger;
  readonly seed: (count: number) => Promise<void>;
}
const backends: Partial<Record<ContractMode, (server: PostgresServer) => Promise<Backend>>> = {
  definer: async (server) => {
    const ledger = await makeLedger(server, 'ledger', { maxLive: 100_000 });
    return { ledger, seed: (count) => seedLive(ledger, count) };
  },
};

const rows: Row[] = [];
for (const mode of parseModes(values.modes)) {
  const open = backends[mode];
  if (open === undefined) throw new Error(`no bench knows yet how to make live roles in the mode ${mode}`);
  const server = await startPostgres({
    version,
    settings: { fsync: 'on', full_page_writes: 'on', shared_buffers: '256MB', max_connections: 100 },
  });
  let ledger: Ledger | undefined;
  try {
    const backend = await open(server);
    ledger = backend.ledger;
    await runMode(mode, backend);
  } finally {
    await ledger?.close();
    await server.stop();
  }
}
report('live', rows);

async function runMode(mode: ContractMode, { ledger, seed }: Backend): Promise<void> {
  const session = ledger.connect({ scram_iterations: 1 });
  await round(ledger, session);
  const floors = new Map<string, number>();
  for (const level of levels) {
    await seed(level);
    const mints: Measured[] = [];
    const revokes: Measured[] = [];
    for (let count = 0; count < ROUNDS; count++) {
      const measured = await round(ledger, session);
      mints.push(measured.mint);
      revokes.push(measured.revoke);
    }
    for (const [what, measured] of [
      ['mint', joined(mints)],
      ['revoke', joined(revokes)],
    ] as const) {
      const prefix = values.modes.includes(',') || mode !== 'definer' ? `${mode} ` : '';
      floors.set(what, floors.get(what) ?? measured.value);
      rows.push({
        case: `${prefix}${what} live ${level}`,
        unit: 'roles/s',
        ...measured,
        ratio: measured.value / (floors.get(what) ?? measured.value),
        of: `${prefix}${what} live ${levels[0]}`,
      });
    }
  }
  await session.close();
}

async function round(ledger: Ledger, session: Ledger['session']): Promise<{ mint: Measured; revoke: Measured }> {
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
