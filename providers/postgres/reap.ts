import { type Outcome, ProviderError, type Ref } from '../../src/provider.ts';
import { classify, classifyState } from './errors.ts';
import { disown, printable } from './disown.ts';
import { oidOf, strayed } from './handle.ts';
import { killer, sweep } from './sweep.ts';
import type { Target } from './target.ts';

/** Roles per transaction. */
const batchSize = 50;
/** Milliseconds to wait for a lock on what a role owns. */
const dropWait = 200;

interface Job {
  readonly ref: Ref;
  readonly index: number;
}

/**
 * Drops the roles: those that own nothing and were granted nothing in batches, each other one alone, once what it owned
 * is gone in every database (disown.ts). Then sweeps once more by OID: a session outlives its role.
 * "Does not exist" is success; "may not" never is.
 */
export async function reap(target: Target, refs: readonly Ref[], signal: AbortSignal): Promise<readonly Outcome[]> {
  const outcomes: Outcome[] = [];
  const fail = ({ index }: Job, error: ProviderError): void => {
    outcomes[index] = { ok: false, error };
  };
  const run = async (jobs: readonly Job[], owned: boolean): Promise<readonly Job[]> => {
    try {
      return await drop(target, jobs, owned, signal, outcomes);
    } catch (error) {
      const failed = classify(error, 'dropping');
      jobs.forEach((job) => fail(job, failed));
      return [];
    }
  };

  const jobs = refs.map((ref, index) => ({ ref, index }));
  const owners: Job[] = [];
  for (let from = 0; from < jobs.length; from += batchSize) {
    owners.push(...(await run(jobs.slice(from, from + batchSize), false)));
  }
  for (const owner of owners) {
    const error = await disown(target, owner.ref, signal);
    if (error === null) {
      await run([owner], true);
    } else {
      fail(owner, error);
    }
  }

  const dropped = jobs.flatMap((job) => {
    const oid = oidOf(job.ref.facts);
    return outcomes[job.index]?.ok === true && oid !== null ? [{ ...job, oid }] : [];
  });
  if (dropped.length > 0) {
    try {
      const oids = dropped.map(({ oid }) => oid);
      // The fence is long past: whoever raced it was met by its three sweeps.
      const { alive } = await sweep(killer(target, signal), oids, signal, [], 1);
      const outlive = new ProviderError('retryable', 'dropping: sessions outlive the role');
      dropped.filter(({ oid }) => alive.has(oid)).forEach((job) => fail(job, outlive));
    } catch (error) {
      const failed = classify(error, 'dropping');
      dropped.forEach((job) => fail(job, failed));
    }
  }
  return outcomes;
}

/** Notes the outcomes, and returns the jobs whose roles own things, which are still to be done. */
async function drop(
  target: Target,
  jobs: readonly Job[],
  owned: boolean,
  signal: AbortSignal,
  outcomes: Outcome[],
): Promise<readonly Job[]> {
  return target.cleaning.useTwice(signal, async ({ connection, status }) => {
    const here = jobs.filter(({ ref, index }) => {
      const error = strayed(ref, status);
      if (error !== null) {
        outcomes[index] = { ok: false, error };
      }
      return error === null;
    });
    const rows = await connection.query<{ outcome: string; detail: string | null }>(
      'dropping',
      'SELECT outcome, detail FROM mayfly.drop($1, $2::text[], $3::oid[], $4, $5) ORDER BY ord',
      [
        target.context.installation,
        here.map(({ ref }) => ref.handle),
        here.map(({ ref }) => oidOf(ref.facts)),
        ...[dropWait, owned],
      ],
      signal,
    );
    here.forEach(({ index }, place) => {
      const { outcome, detail } = rows[place] ?? { outcome: 'failed:XX000', detail: null };
      outcomes[index] =
        outcome === 'dropped' || outcome === 'absent'
          ? { ok: true, evidence: { role: outcome } }
          : { ok: false, error: dropError(outcome, detail) };
    });
    return here.filter((_, place) => rows[place]?.outcome === 'owner');
  });
}

function dropError(outcome: string, detail: string | null): ProviderError {
  switch (outcome) {
    case 'live':
      return new ProviderError('retryable', 'dropping: the role can log in; fence it first');
    case 'busy':
      return new ProviderError(
        'retryable',
        'releasing: the role of the pool is not empty yet (sessions, a login, or what a person gave it)',
      );
    case 'owner':
      return new ProviderError('retryable', 'dropping: the role owns things and was not reached');
    case 'locked':
      return new ProviderError('retryable', 'dropping: something of the role is locked');
    case 'dependents':
      return new ProviderError('retryable', `dropping: the role still holds: ${printable(detail ?? 'something')}`);
    case 'prepared':
      return new ProviderError(
        'retryable',
        `dropping: the role left prepared transactions; a superuser must run ${detail}`,
      );
    case 'elsewhere':
      return new ProviderError(
        'misconfigured',
        `dropping: the role owns or may use objects in databases that the target does not list: ${printable(detail ?? '')}`,
      );
    case 'foreign':
      return new ProviderError('misconfigured', 'dropping: a role bears this name or OID without our mark');
    default:
      return classifyState(outcome.replace('failed:', ''), 'dropping');
  }
}
