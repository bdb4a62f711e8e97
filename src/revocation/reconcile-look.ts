import { bounded } from '../domain/within.ts';
import { endingDrift } from '../domain/drift.ts';
import type { Drift, Found, Observation, Ref, Session, Use } from '../provider.ts';
import type { AliveGrant } from '../store/reconcile-page.ts';
import { askEach } from './answers.ts';
import { isOpen, toRef } from './looking.ts';
import type { ReconcileDeps } from './reconcile-deps.ts';

/** One call to a target. */
const CALL_SECONDS = 10;
/** Clocks are measured anew now and then: a session's begin moves by as much. */
const SAME_SESSION_MILLIS = 2_000;

/** What a look at a living grant showed that was not told before. */
export interface Seen {
  readonly grant: AliveGrant;
  readonly lost: boolean;
  /** Undefined where nothing new can be said. */
  readonly drift: readonly Drift[] | undefined;
  readonly used: (Observation & { ok: true }) | undefined;
  readonly usedSince: Date | null;
}

/** What a look at the living grants of one page showed. */
export interface Looked {
  /** What is new. */
  readonly seen: readonly Seen[];
  /** Those whose credential is not what was granted, told before or not. */
  readonly changed: readonly AliveGrant[];
  readonly uninspected: number;
}

/** @throws the reason of the signal, when the provider does not end by it. */
function ask<T>(signal: AbortSignal, call: (signal: AbortSignal) => Promise<T>): Promise<T> {
  return bounded(CALL_SECONDS * 1000, [signal], call);
}

/** The next page of what the target lists, in order; empty at its end. A provider may have answered all at once before. */
export async function listPage(session: Session, after: string, signal: AbortSignal): Promise<readonly Found[]> {
  const list = session.list?.bind(session);
  const listed = list === undefined ? [] : await ask(signal, (limited) => list(limited, after));
  return listed.filter(({ handle }) => handle > after).toSorted((a, b) => (a.handle < b.handle ? -1 : 1));
}

/** Looks at the grants of one page that are alive here. */
export async function lookAtAlive(
  deps: ReconcileDeps,
  session: Session,
  alive: readonly AliveGrant[],
  listed: ReadonlySet<string>,
  signal: AbortSignal,
): Promise<Looked> {
  const missing = alive.filter(({ handle }) => !listed.has(handle));
  const present = alive.filter(({ handle }) => listed.has(handle));
  const gone = await confirmGone(session, missing, signal);
  const drifts = await inspectAlive(deps, session, present, signal);
  const uses = await observed(deps, session, present, signal);
  const lost = missing.flatMap((grant) =>
    gone.has(grant) && !grant.lost
      ? [{ grant, lost: true, drift: undefined, used: undefined, usedSince: grant.usedSince }]
      : [],
  );
  const seen = present.flatMap((grant) => {
    const drift = drifts.get(grant);
    const changed = drift !== undefined && codes(drift) !== [...grant.drift].sort().join();
    const used = uses.get(grant);
    if (!changed && used === undefined && !grant.lost) return [];
    const usedSince = used === undefined ? grant.usedSince : youngest(used.sessions);
    return [{ grant, lost: false, drift: changed ? drift : undefined, used, usedSince }];
  });
  return {
    seen: [...lost, ...seen],
    changed: present.filter((grant) => endingDrift(drifts.get(grant) ?? []).length > 0),
    // What the catalog has no terms for any more can not be compared: that is drift of another kind.
    uninspected:
      session.inspect === undefined
        ? 0
        : present.filter((grant) => !drifts.has(grant) && deps.entitlement(grant.entitlement) !== undefined).length,
  };
}

/** Those that can be used, by `verify`. */
export async function findOpen<R extends Ref>(
  session: Session,
  refs: readonly R[],
  signal: AbortSignal,
): Promise<readonly R[]> {
  if (refs.length === 0) return [];
  const verdicts = await askEach(refs, signal, (some, limited) => session.verify(some, limited));
  return refs.filter((_, index) => isOpen(verdicts[index]));
}

/** The codes of a drift, as they are kept. */
export function codes(drift: readonly Drift[]): string {
  return [...new Set(drift.map(({ what }) => what))].sort().join();
}

/** A list can be short of one; only what `verify` finds nothing of is gone. */
async function confirmGone(
  session: Session,
  missing: readonly AliveGrant[],
  signal: AbortSignal,
): Promise<ReadonlySet<AliveGrant>> {
  if (missing.length === 0) return new Set();
  const verdicts = await askEach(missing.map(toRef), signal, (refs, limited) => session.verify(refs, limited));
  return new Set(
    missing.filter((_, index) => {
      const verdict = verdicts[index];
      return verdict?.ok === true && verdict.clean;
    }),
  );
}

/** How each differs from what was granted. Of whom the target said nothing, there is nothing. */
export async function inspectAlive(
  deps: ReconcileDeps,
  session: Session,
  present: readonly AliveGrant[],
  signal: AbortSignal,
): Promise<ReadonlyMap<AliveGrant, readonly Drift[]>> {
  const known = present.flatMap((grant) => {
    const config = deps.entitlement(grant.entitlement);
    return config === undefined ? [] : [{ grant, config }];
  });
  const inspect = session.inspect?.bind(session);
  if (inspect === undefined || known.length === 0) return new Map();
  const granted = known.map(({ grant, config }) => ({ ...toRef(grant), config }));
  const inspections = await ask(signal, (limited) => inspect(granted, limited)).catch((error: unknown) =>
    deps.log({ error }, 'what was granted can not be inspected now'),
  );
  return new Map(
    known.flatMap(({ grant }, index) => {
      const inspection = inspections?.[index];
      return inspection?.ok === true ? [[grant, inspection.drift] as const] : [];
    }),
  );
}

/** Sessions that were not seen before. */
async function observed(
  deps: ReconcileDeps,
  session: Session,
  present: readonly AliveGrant[],
  signal: AbortSignal,
): Promise<ReadonlyMap<AliveGrant, Observation & { ok: true }>> {
  const observe = session.observe?.bind(session);
  if (observe === undefined || present.length === 0) return new Map();
  const observations = await ask(signal, (limited) => observe(present.map(toRef), limited)).catch((error: unknown) =>
    deps.log({ error }, 'use can not be observed now'),
  );
  return new Map(
    present.flatMap((grant, index) => {
      const observation = observations?.[index];
      if (observation?.ok !== true) return [];
      const newest = youngest(observation.sessions)?.getTime() ?? Number.NEGATIVE_INFINITY;
      const before = grant.usedSince?.getTime() ?? Number.NEGATIVE_INFINITY;
      return newest > before + SAME_SESSION_MILLIS ? [[grant, observation] as const] : [];
    }),
  );
}

function youngest(sessions: readonly Use[]): Date | null {
  return sessions.length === 0 ? null : new Date(Math.max(...sessions.map(({ since }) => since.getTime())));
}
