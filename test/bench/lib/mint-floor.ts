import { randomUUID } from 'node:crypto';
import type pg from 'pg';
import { randomPassword, scramVerifier } from '../../../providers/postgres/scram.ts';
import type { Ledger } from '../../contract/postgres-fixture.ts';
import { type Measured, measure } from './report.ts';

/** What one round measured. */
export interface Round {
  readonly mint: Measured;
  readonly revoke: Measured;
}

/**
 * The provider's own functions called straight through pg: one sweep, and no look at the end.
 * @param batch Roles per revoke.
 */
export async function floorRound(
  ledger: Ledger,
  clients: readonly pg.Client[],
  count: number,
  batch: number,
): Promise<Round> {
  const { installation, entitlement, config } = ledger;
  const pooled = config.mode === 'pool';
  const handles: string[] = [];
  const mint = await measure(count, clients.length, async (_, lane) => {
    const id = randomUUID();
    const handle = `mfy_${id.replaceAll('-', '')}`;
    const verifier = await scramVerifier(randomPassword(), 1);
    const [until, mintBy] = [new Date(Date.now() + 300_000), new Date(Date.now() + 30_000)];
    await clients[lane]?.query({
      name: 'mint',
      text: `SELECT role_oid FROM mayfly.${pooled ? 'mint_pooled' : 'mint'}($1, $2, $3, $4, $5, $6, $7, $8, $9)`,
      values: [installation, handle, id, entitlement.template, verifier, until, until, mintBy, 4],
    });
    handles.push(handle);
  });
  const [client] = clients;
  const batches = await measure(count / batch, 1, async (index) => {
    const some = handles.slice(index * batch, (index + 1) * batch);
    const until = some.map(() => new Date(Date.now() + 300_000));
    const none = some.map(() => null);
    const ask = (text: string, values: unknown[]) => client?.query<{ oid: number; outcome: string }>(text, values);
    const fenced = await ask(
      'SELECT role_oid AS oid, outcome FROM mayfly.fence($1, $2::text[], $3::oid[], $4::timestamptz[], 1000, false)',
      [installation, some, none, until],
    );
    const oids = fenced?.rows.map(({ oid }) => oid);
    await ask('SELECT outcome FROM mayfly.unlink($1, $2::oid[], 1000)', [installation, oids]);
    await ask(`SELECT mayfly.kill($1, $2::oid[], '{}') AS outcome`, [installation, oids]);
    const dropped = await ask('SELECT outcome FROM mayfly.drop($1, $2::text[], $3::oid[], 1000, false)', [
      installation,
      some,
      oids,
    ]);
    const wrong = dropped?.rows.filter(({ outcome }) => outcome !== 'dropped');
    if (wrong?.length !== 0) throw new Error(`the floor did not end a role: ${JSON.stringify(wrong?.[0])}`);
  });
  return { mint, revoke: { ...batches, perSecond: batches.perSecond * batch } };
}
