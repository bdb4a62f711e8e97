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

/** The target's record of who holds it, after the beat was written where it may be. */
export async function hold(target: Target, signal: AbortSignal, beat: Beat | undefined): Promise<Holder> {
  return target.issuing.useTwice(signal, async ({ connection }) => {
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
