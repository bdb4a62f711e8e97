import { z } from 'zod';
import { type Beat, type Holder, ProviderError } from '../../src/provider.ts';
import type { Target } from './target.ts';

const holderSchema = z.object({
  installation: z.string(),
  epoch: z.int(),
  store: z.string().nullable(),
  tenure: z.string().nullable(),
  beat: z.int(),
});

/** The target's record of who holds it, after the beat was written where it may be; null where it has none yet. */
export async function hold(target: Target, signal: AbortSignal, beat: Beat | undefined): Promise<Holder | null> {
  return target.issuing.useTwice(signal, async ({ connection }) => {
    const [kept] = await connection.query<{ kept: boolean }>(
      'reading who holds the target',
      `SELECT to_regprocedure('mayfly.hold(uuid, text, uuid, bigint)') IS NOT NULL AS kept`,
      [],
      signal,
    );
    // Prepared by an earlier release: ends must go on there.
    if (kept?.kept !== true) return null;
    const [row] = await connection.query(
      'reading who holds the target',
      'SELECT mayfly.hold($1, $2, $3, $4) AS holder',
      [target.context.installation, beat?.store ?? null, beat?.tenure ?? null, beat?.beat ?? null],
      signal,
    );
    const parsed = holderSchema.safeParse(row?.['holder']);
    if (!parsed.success) throw new ProviderError('misconfigured', 'the target is not prepared (mayfly target prepare)');
    return parsed.data;
  });
}
