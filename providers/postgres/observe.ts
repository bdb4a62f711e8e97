import { z } from 'zod';
import { type Observation, observedSessions, ProviderError, type Ref } from '../../src/provider.ts';
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

/** The sessions of each role as the target shows them now, found by OID: also those of a role that was dropped. */
export async function observe(
  target: Target,
  refs: readonly Ref[],
  signal: AbortSignal,
): Promise<readonly Observation[]> {
  const when = (ms: number): Date => target.clock.fromTarget(new Date(ms));
  // A look must not take a connection from those that end sessions.
  return target.issuing.useTwice(signal, async ({ connection, status }) => {
    const [row] = await connection.query(
      'observing',
      'SELECT mayfly.observe($1, $2::text[], $3::oid[], $4) AS observed',
      [
        target.context.installation,
        refs.map(({ handle }) => handle),
        refs.map(({ facts }) => oidOf(facts)),
        observedSessions,
      ],
      signal,
    );
    const observed = observedSchema.parse(row?.['observed']);
    return refs.map((ref, index): Observation => {
      const error = strayed(ref, status);
      const seen = observed[index];
      if (error !== null || seen === undefined) {
        return { ok: false, error: error ?? new ProviderError('retryable', 'observing: no answer') };
      }
      const sessions = seen.sessions.map((session) => ({
        applicationName: session.application,
        clientAddress: session.address,
        since: when(session.since_ms),
        state: session.state,
        lastQueryAt: session.query_ms === null ? null : when(session.query_ms),
      }));
      return { ok: true, total: seen.total, sessions };
    });
  });
}
