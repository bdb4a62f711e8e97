import { type Outcome, ProviderError, type Ref } from '../../src/provider.ts';
import { classify, classifyState } from './errors.ts';
import { oidOf, strayed } from './handle.ts';
import { sweep } from './sweep.ts';
import type { Target } from './target.ts';

/** Roles per transaction. */
const batchSize = 50;
/** Milliseconds to wait for a lock on what a role owns. */
const dropWait = 200;

/**
 * Drops the roles with what they own or were granted in this database, each on its own, then sweeps once more by OID:
 * a session outlives its role. "Does not exist" is success; "may not" never is.
 */
export async function reap(target: Target, refs: readonly Ref[], signal: AbortSignal): Promise<readonly Outcome[]> {
  const outcomes: Outcome[] = [];
  for (let from = 0; from < refs.length; from += batchSize) {
    const batch = refs.slice(from, from + batchSize);
    try {
      outcomes.push(...(await drop(target, batch, signal)));
    } catch (error) {
      const failed = classify(error, 'dropping');
      outcomes.push(...batch.map(() => ({ ok: false as const, error: failed })));
    }
  }
  return outcomes;
}

async function drop(target: Target, refs: readonly Ref[], signal: AbortSignal): Promise<readonly Outcome[]> {
  const outcomes = await target.revoking.useTwice(signal, async ({ connection, status }) => {
    const errors = refs.map((ref) => strayed(ref, status));
    const here = refs.filter((_, index) => errors[index] === null);
    const rows = await connection.query<{ outcome: string; detail: string | null }>(
      'dropping',
      'SELECT outcome, detail FROM mayfly.drop($1, $2::text[], $3::oid[], $4) ORDER BY ord',
      [target.context.installation, here.map(({ handle }) => handle), here.map(({ facts }) => oidOf(facts)), dropWait],
      signal,
    );
    let next = 0;
    return errors.map((error): Outcome => {
      if (error !== null) {
        return { ok: false, error };
      }
      const row = rows[next] ?? { outcome: 'failed:XX000', detail: null };
      next += 1;
      return row.outcome === 'dropped' || row.outcome === 'absent'
        ? { ok: true, evidence: { role: row.outcome } }
        : { ok: false, error: dropError(row.outcome, row.detail) };
    });
  });
  const oids = refs.flatMap(({ facts }, index) => {
    const oid = oidOf(facts);
    return outcomes[index]?.ok === true && oid !== null ? [oid] : [];
  });
  const { alive } = await sweep(target, oids, signal);
  return outcomes.map((outcome, index) => {
    const oid = oidOf(refs[index]?.facts ?? null);
    return oid !== null && alive.has(oid)
      ? { ok: false, error: new ProviderError('retryable', 'dropping: sessions outlive the role') }
      : outcome;
  });
}

function dropError(outcome: string, detail: string | null): ProviderError {
  switch (outcome) {
    case 'live':
      return new ProviderError('retryable', 'dropping: the role can log in; fence it first');
    case 'locked':
      return new ProviderError('retryable', 'dropping: something of the role is locked');
    case 'dependents':
      return new ProviderError('retryable', 'dropping: objects of others depend on what the role owns');
    case 'elsewhere':
      return new ProviderError(
        'misconfigured',
        `dropping: the role owns or may use objects in other databases: ${detail}`,
      );
    case 'foreign':
      return new ProviderError('misconfigured', 'dropping: a role bears this name or OID without our mark');
    default:
      return classifyState(outcome.replace('failed:', ''), 'dropping');
  }
}
