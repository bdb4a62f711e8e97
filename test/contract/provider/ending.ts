import assert from 'node:assert/strict';
import { type Outcome, ProviderError, type Ref, type Verdict } from '../../../src/provider.ts';
import type { Live } from './live.ts';
import { SKEW_MILLIS, type Subject } from './subject.ts';

/** How long a step may be tried again where the target says that it must. Milliseconds. */
const PATIENCE_MILLIS = 30_000;

/** Refs in one batch, where there are many. */
const BATCH = 40;

/** Asks until it is so. `ask` answers what is missing, or null. @throws AssertionError with what was missing last. */
export async function until(
  subject: Subject,
  patienceMillis: number,
  what: string,
  ask: () => Promise<string | null>,
): Promise<void> {
  const last = subject.now() + patienceMillis;
  const lastReal = Date.now() + patienceMillis + 60_000;
  for (;;) {
    const missing = await ask();
    if (missing === null) return;
    if (subject.now() > last || Date.now() > lastReal) assert.fail(`${what}: ${missing}`);
    // Where time is turned on it costs nothing.
    await subject.pass(subject.system.clock === undefined ? 50 : 250);
  }
}

/** How long an end of these may take, by what was promised. Milliseconds. */
function patience(subject: Subject, refs: readonly Ref[]): number {
  const ends = subject.tested.some(({ guarantee }) => guarantee.revocation === 'expiry-only')
    ? Math.max(...refs.map(({ deadline }) => deadline.getTime() - subject.now() + SKEW_MILLIS), 0)
    : 0;
  const spreads = Math.max(...subject.tested.map(({ guarantee }) => 1000 * (guarantee.propagation_seconds ?? 0)));
  return ends + spreads + Math.max(PATIENCE_MILLIS, subject.system.unprovenMillis ?? 0);
}

/** Fences, again while the target asks for that, until verify says contained of each. */
export async function contain(subject: Subject, refs: readonly Ref[]): Promise<void> {
  await until(subject, patience(subject, refs), 'it was not contained', async () => {
    const outcomes = await subject.fence(refs);
    assertAnswers(outcomes, refs);
    for (const outcome of outcomes) {
      if (!outcome.ok) return retried(outcome.error);
    }
    const verdicts = await subject.verify(refs);
    assertAnswers(verdicts, refs);
    for (const verdict of verdicts) {
      if (!verdict.ok) return retried(verdict.error);
      if (!verdict.contained) return `verify says ${JSON.stringify(verdict.evidence)}`;
    }
    return null;
  });
}

/** Reaps, again from `notBefore` on, until verify says clean of each. */
export async function clean(subject: Subject, refs: readonly Ref[]): Promise<void> {
  if (refs.length === 0) return;
  const last = Math.max(...refs.map(({ deadline }) => deadline.getTime() - subject.now()), 0) + 2 * SKEW_MILLIS;
  await until(subject, patience(subject, refs) + last, 'it was not clean', async () => {
    const outcomes = await subject.reap(refs);
    assertAnswers(outcomes, refs);
    for (const outcome of outcomes) {
      if (!outcome.ok) return retried(outcome.error);
      if (outcome.notBefore === undefined) continue;
      await subject.pass(Math.min(1000, Math.max(0, outcome.notBefore.getTime() - subject.now())));
      return `reap asks for ${outcome.notBefore.toISOString()}`;
    }
    const verdicts = await subject.verify(refs);
    assertAnswers(verdicts, refs);
    for (const verdict of verdicts) {
      if (!verdict.ok) return retried(verdict.error);
      if (!verdict.contained || !verdict.clean) return `verify says ${JSON.stringify(verdict.evidence)}`;
    }
    return null;
  });
}

/** Ended as the broker ends it, and nothing left by the driver's own look. */
export async function endWhole(subject: Subject, refs: readonly Ref[]): Promise<void> {
  await contain(subject, refs);
  await clean(subject, refs);
  await assertNothingLeft(subject, refs);
}

export async function assertNothingLeft(subject: Subject, refs: readonly Ref[]): Promise<void> {
  for (const { handle, facts } of refs) {
    assert.deepEqual(await subject.system.look(handle, facts), [], `Something of ${handle} was left`);
    subject.ledger.seenGone(handle);
  }
}

/** Ends what a case left alive. Each must be a success, as soon as the target can be asked. */
export async function tidy(subject: Subject): Promise<void> {
  await subject.heal();
  const left = subject.ledger.live;
  for (let from = 0; from < left.length; from += BATCH) {
    const refs = left.slice(from, from + BATCH);
    await until(subject, PATIENCE_MILLIS, 'what the case left could not be ended', async () => {
      const outcomes = await subject.fence(refs);
      assertAnswers(outcomes, refs);
      for (const outcome of outcomes) if (!outcome.ok) return retried(outcome.error);
      return null;
    });
  }
}

/** It does not work, now or ever again, where its end says so. */
export async function assertRefused(subject: Subject, live: Live, after: string): Promise<void> {
  if (live.entitlement.guarantee.revocation === 'irrevocable') return;
  assert.equal(await subject.uses(live), false, `The credential of ${live.entitlement.name} works after ${after}`);
}

/** Same length, same order, and failures of the four classes. */
export function assertAnswers(answers: readonly (Outcome | Verdict)[], refs: readonly Ref[]): void {
  assert.equal(answers.length, refs.length, 'The answers are not as many as the refs');
  answers.forEach((answer, index) => {
    if (answer.handle !== undefined) assert.equal(answer.handle, refs[index]?.handle, 'Answers in another order');
    if (!answer.ok) classified(answer.error, 'one of a batch');
  });
}

/** A failure of a call or of one ref in it must be one of the four classes. */
export function classified(error: unknown, doing: string): ProviderError {
  assert.ok(error instanceof ProviderError, `${doing} failed with what is no ProviderError: ${nameOf(error)}`);
  assert.ok(
    ['retryable', 'denied', 'misconfigured', 'gone'].includes(error.errorClass),
    `${doing} failed with the class ${error.errorClass}`,
  );
  return error;
}

function retried(error: ProviderError): string {
  if (classified(error, 'an end').errorClass !== 'retryable') throw error;
  return error.message;
}

function nameOf(error: unknown): string {
  return error instanceof Error ? `${error.name}: ${error.message}` : typeof error;
}
