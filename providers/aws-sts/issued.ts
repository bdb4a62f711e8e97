import type { Facts } from '../../src/provider.ts';

/**
 * The session tag that carries when its grant was minted: the broker's second of AWS's clock. It is transitive and set once for all sessions of
 * the grant, so that what is derived from them, however late, is cut with them. The time of issue that AWS keeps is that of each session alone.
 */
export const issuedTag = 'mayfly-issued';

const fact = 'issued_s';

/** What the facts keep of it. */
export function issuedFact(second: number): Facts {
  return { [fact]: second };
}

/** The second that the sessions of a grant bear. Null: nobody knows, or they bear none. */
export function issuedSecond(facts: Facts | null): number | null {
  const second = facts?.[fact];
  return typeof second === 'number' ? second : null;
}

/** The same in milliseconds. */
export function issuedMillis(facts: Facts | null): number | null {
  const second = issuedSecond(facts);
  return second === null ? null : second * 1000;
}
