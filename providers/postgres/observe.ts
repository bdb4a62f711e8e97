import { z } from 'zod';
import { type Observation, observedSessions, ProviderError, type Ref, type Use } from '../../src/provider.ts';
import type { TargetClock } from './clock.ts';
import type { Connection } from './connection.ts';
import { oidOf, strayed } from './handle.ts';
import type { Target } from './target.ts';

const observedSchema = z.array(
  z.object({
    total: z.int(),
    sessions: z.array(
      z.object({
        address: z.string(),
        application: z.string(),
        since_ms: z.number(),
        state: z.string().nullable(),
        query_ms: z.number().nullable(),
      }),
    ),
  }),
);

/** What one server shows of one role. */
export interface Sample {
  readonly total: number;
  readonly sessions: readonly Use[];
}

/** The sessions of each role as the target shows them now, found by OID: also those of a role that was dropped. */
export async function observe(
  target: Target,
  refs: readonly Ref[],
  signal: AbortSignal,
): Promise<readonly Observation[]> {
  // A look must not take a connection from those that end sessions.
  return target.issuing.useTwice(signal, async ({ connection, status }) => {
    const samples = await sampleSessions(connection, refs, target.context.installation, target.clock, signal);
    return refs.map((ref, index): Observation => {
      const error = strayed(ref, status);
      const seen = samples[index];
      return error !== null || seen === undefined
        ? { ok: false, error: error ?? new ProviderError('retryable', 'observing: no answer') }
        : { ok: true, ...seen };
    });
  });
}

/** On the server of that connection, whose clock it is. */
export async function sampleSessions(
  connection: Connection,
  refs: readonly Ref[],
  installation: string,
  clock: TargetClock,
  signal: AbortSignal,
): Promise<readonly Sample[]> {
  const when = (ms: number): Date => clock.fromTarget(new Date(ms));
  const [row] = await connection.query(
    'observing',
    'SELECT mayfly.observe($1, $2::text[], $3::oid[], $4) AS observed',
    [installation, refs.map(({ handle }) => handle), refs.map(({ facts }) => oidOf(facts)), observedSessions],
    signal,
  );
  return observedSchema.parse(row?.['observed']).map(({ total, sessions }) => ({
    total,
    sessions: sessions.map((session) => ({
      applicationName: session.application,
      clientAddress: session.address,
      since: when(session.since_ms),
      state: session.state,
      lastQueryAt: session.query_ms === null ? null : when(session.query_ms),
    })),
  }));
}
