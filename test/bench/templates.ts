import { prepare } from '../../providers/postgres/prepare.ts';
import type { Ref } from '../../src/provider.ts';
import { entitlementName, makeLedger, soon } from '../contract/postgres-fixture.ts';
import { startPostgres } from '../support/postgres-servers.ts';
import { joined, type Measured, measure, report, type Row } from './lib/report.ts';

/**
 * Whether mints on one template hold each other up: sixteen at once on one, on two and on four templates with the same
 * rights, taking turns, by the provider's session with one SCRAM iteration. Durable writes, as in production.
 */
const CONCURRENCY = 16;
const COUNT = 320;
const ROUNDS = 5;
const SHARDS = [1, 2, 4] as const;

const server = await startPostgres({
  version: 18,
  settings: { fsync: 'on', full_page_writes: 'on', shared_buffers: '256MB' },
});
const ledger = await makeLedger(server, 'ledger', { maxLive: 10_000 });
try {
  const entitlements = [0, 1, 2, 3].map((shard) => ({
    name: `${entitlementName}-${shard}`,
    maxTtlSeconds: 900,
    config: { ...ledger.entitlement, template: `mayfly_t_shard_${shard}` },
  }));
  await prepare(server.superuserUrl(), ledger.config, entitlements, ledger.installation, { password: ledger.password });
  const session = ledger.connect({ scram_iterations: 1, max_connections: CONCURRENCY + 4 });
  const round = async (shards: number): Promise<Measured> => {
    const refs: Ref[] = [];
    const measured = await measure(COUNT, CONCURRENCY, async (index) => {
      const ref = ledger.ref();
      const config = entitlements[index % shards]?.config ?? ledger.entitlement;
      const { facts } = await session.mint(ref, ledger.request(ref, { config }), soon());
      refs.push({ ...ref, facts });
    });
    const ended = [...(await session.fence(refs, soon())), ...(await session.reap(refs, soon()))];
    if (ended.some(({ ok }) => !ok)) throw new Error('a role was not ended');
    return measured;
  };
  await round(4);
  const rounds = new Map<number, Measured[]>(SHARDS.map((shards) => [shards, []]));
  for (let count = 0; count < ROUNDS; count++) {
    for (const shards of SHARDS) rounds.get(shards)?.push(await round(shards));
  }
  const results = SHARDS.map((shards) => ({ shards, ...joined(rounds.get(shards) ?? []) }));
  const floor = results[0]?.value ?? 1;
  const of = `mint c${CONCURRENCY} templates 1`;
  const rows = results.map(
    ({ shards, ...measured }): Row => ({
      case: `mint c${CONCURRENCY} templates ${shards}`,
      unit: 'roles/s',
      ...measured,
      ratio: measured.value / floor,
      of,
    }),
  );
  report('templates', rows);
  await session.close();
} finally {
  await ledger.close();
  await server.stop();
}
