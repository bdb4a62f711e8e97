import assert from 'node:assert/strict';
import { setMaxListeners } from 'node:events';
import type { Outcome, Ref, Verdict } from '../../../../src/provider.ts';
import { assertNothingLeft, classified, contain } from '../ending.ts';
import type { Live, Tested } from '../live.ts';
import type { Subject } from '../subject.ts';

/** What became of one call while something was wrong. */
export type Came = { readonly name: string } & (
  | { readonly answered: unknown }
  | { readonly threw: unknown }
  | { readonly goesOn: true }
);

/** Credentials of one entitlement for every call, made while all was well. */
export interface Prepared {
  readonly entitlement: Tested;
  readonly fenced: Live;
  readonly verified: Live;
  readonly renewed: Live;
  readonly reaped: Live;
  /** Minted meanwhile: whether it was, nobody knows. */
  readonly late: Ref;
}

/** For each mechanism. */
export async function prepareAll(subject: Subject): Promise<readonly Prepared[]> {
  const all: Prepared[] = [];
  await subject.each(async (entitlement) => all.push(await prepare(subject, entitlement)));
  return all;
}

async function prepare(subject: Subject, entitlement: Tested): Promise<Prepared> {
  const early = entitlement.guarantee.revocation !== 'expiry-only';
  const mint = (): Promise<Live> => subject.mint({ entitlement });
  const reaped = await mint();
  if (early) await contain(subject, [reaped.ref]);
  const [fenced, verified, renewed] = [await mint(), await mint(), await mint()];
  const late = subject.ref(early ? 60_000 : subject.lifeToClean(entitlement));
  return { entitlement, reaped, fenced, verified, renewed, late };
}

/** Every call at once, under one signal; none is waited for longer than the grace after it. */
export async function callAll(
  subject: Subject,
  on: Prepared,
  signal: AbortSignal,
  most: number,
): Promise<readonly Came[]> {
  const { session } = subject;
  const { entitlement } = on;
  // So many calls listen to it at once.
  setMaxListeners(0, signal);
  const then = new Date(on.renewed.ref.deadline.getTime() + 1_000);
  const granted = { ...on.verified.ref, config: entitlement.config };
  const mintBy = new Date(subject.now() + 5_000);
  const calls: readonly (readonly [string, Promise<unknown> | undefined])[] = [
    ['guarantee', session.guarantee(entitlement.config, signal)],
    ['mint', subject.mint({ ref: on.late, entitlement, signal, changes: { mintBy } })],
    ['fence', subject.fence([on.fenced.ref], signal, session)],
    ['verify', session.verify([on.verified.ref], signal)],
    ['reap', subject.reap([on.reaped.ref], signal, session)],
    ['renew', session.renew?.(on.renewed.ref, then, signal, subject.request(on.renewed.ref, entitlement))],
    ['inspect', session.inspect?.([granted], signal)],
    ['observe', session.observe?.([on.verified.ref], signal)],
    ['ends', session.ends?.([on.verified.ref], signal)],
    ['list', session.list?.(signal)],
    ['hold', session.hold?.(signal)],
    ['check', session.check({ name: entitlement.name, config: entitlement.config }, signal)],
  ];
  const late = new Promise<'late'>((resolve) => setTimeout(resolve, most, 'late'));
  return await Promise.all(calls.flatMap(([name, call]) => (call === undefined ? [] : [outcomeOf(name, call, late)])));
}

async function outcomeOf(name: string, call: Promise<unknown>, late: Promise<'late'>): Promise<Came> {
  return await Promise.race([
    call.then(
      (answered) => ({ name, answered }),
      (threw: unknown) => ({ name, threw }),
    ),
    late.then(() => ({ name, goesOn: true as const })),
  ]);
}

/** All ended in time; what failed is classified; and nothing was called a success that was none. */
export async function assertHonest(
  subject: Subject,
  on: Prepared,
  came: readonly Came[],
  signal: AbortSignal,
): Promise<void> {
  assert.deepEqual(
    came.filter((each) => 'goesOn' in each).map(({ name }) => name),
    [],
    'These calls go on after their signal and its grace',
  );
  for (const each of came) {
    if (!('threw' in each) || each.threw === signal.reason) continue;
    const { errorClass } = classified(each.threw, each.name);
    assert.notEqual(errorClass, 'gone', `${each.name}: what could not be reached was called gone`);
  }
  for (const outcome of batch(came, 'fence')) {
    if (!outcome.ok) assert.notEqual(classified(outcome.error, 'fence').errorClass, 'gone');
    else if (!['expiry-only', 'irrevocable'].includes(on.entitlement.guarantee.revocation))
      assert.equal(await subject.uses(on.fenced), false, 'A fence that could not be done was called a success');
  }
  for (const verdict of batch(came, 'verify')) {
    if (!verdict.ok) assert.notEqual(classified(verdict.error, 'verify').errorClass, 'gone');
    else if ('contained' in verdict)
      assert.ok(!verdict.contained, 'What works, and could not be looked at, was called contained');
  }
  const list = came.find(({ name }) => name === 'list');
  if (list !== undefined && 'answered' in list) {
    const handles = Array.isArray(list.answered) ? list.answered.map((found: { handle: string }) => found.handle) : [];
    assert.ok(handles.includes(on.verified.ref.handle), 'A list that could not be read lacks what lives');
  }
}

/** With all well again the same is done: nothing is stuck, nothing is lost. */
export async function assertRecovers(subject: Subject, on: Prepared): Promise<void> {
  await contain(subject, [on.fenced.ref, on.verified.ref, on.renewed.ref, on.reaped.ref]);
  const live = await subject.mint({ entitlement: on.entitlement });
  assert.equal(await subject.uses(live), true, 'With all well again, what is minted does not work');
  await contain(subject, [on.late]);
  const [reaped] = await subject.reap([on.late]);
  assert.ok(reaped?.ok === true, 'What nobody knows was minted cannot be cleaned');
  // Elsewhere it must rest until its deadline.
  if (reaped.notBefore === undefined) await assertNothingLeft(subject, [on.late]);
}

/** What a check that could not be done may answer: failures, or nothing by throwing. */
export function assertCheckFails(came: readonly Came[]): void {
  const check = came.find(({ name }) => name === 'check');
  if (check === undefined || !('answered' in check) || !Array.isArray(check.answered)) return;
  const failed = check.answered.some((step: { ok: boolean }) => !step.ok);
  assert.ok(failed, 'A check of what could not be reached passes');
}

function batch(came: readonly Came[], name: string): readonly (Outcome | Verdict)[] {
  const found = came.find((each) => each.name === name);
  return found !== undefined && 'answered' in found && Array.isArray(found.answered) ? found.answered : [];
}
