import { EXPIRY_SKEW_SECONDS } from '../domain/revocation.ts';

/**
 * SQL: when the end of grant `g`, wanted at `at`, is owed. Then; but where its target can only let it expire, when that is past, and
 * the skew: until then nothing is late, and nothing is stuck.
 */
export function owedAt(at: string): string {
  return `CASE WHEN g.guarantee->>'revocation' = 'expiry-only' AND (g.guarantee->>'native_expiry')::boolean
    THEN greatest(${at}, g.deadline + interval '${EXPIRY_SKEW_SECONDS} seconds') ELSE ${at} END`;
}
