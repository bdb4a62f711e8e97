import type { ActiveRevision } from '../catalog/active.ts';
import type { SignalSource } from '../domain/signal-source.ts';
import { MayflyError } from '../domain/errors.ts';
import type { SignalId } from '../domain/ids.ts';
import { namesWorkload } from '../domain/named-workloads.ts';
import { isBad, isBroad, severity } from '../domain/signal.ts';
import { step } from '../domain/step.ts';
import type { Caller, WorkloadCaller } from '../identity/types.ts';
import { findActiveRevisionNumber } from '../store/catalog-revisions.ts';
import type { Transaction } from '../store/database.ts';
import type { Locks } from '../store/locks.ts';
import {
  countOpen,
  countPlaces,
  type EarlierSignal,
  findEarlier,
  hear,
  holdStanding,
  insertSignals,
  type NewSignal,
  putStanding,
  type SignalOutcome,
  type SignalPlace,
  type Standing,
} from '../store/signals.ts';
import type { BrokerDeps, CallContext } from './deps.ts';
import { requireRevision, revisionOf } from './revision.ts';
import { bodyDigest, placeOf, type SaidSignal, type SaidWord } from './said-signal.ts';
import { type Moved, moveBySignals, tellReceived } from './move-by-signal.ts';

/** How far ahead of the store's clock a source's may be. */
const AHEAD_MILLIS = 30_000;
/** Incidents and freezes that stand, of one source: each decision reads all of them. */
const MOST_OPEN = 100;
/** Places that one source speaks of, whatever it says there: so much is kept. */
const MOST_PLACES = 100_000;

export interface TakenSignal {
  /** The source's own id. */
  readonly key: string;
  readonly outcome: SignalOutcome;
  readonly receivedAt: Date;
}

/** What became of each, in their order. */
export type SignalAnswer = TakenSignal | MayflyError;

/**
 * Takes what a source says. What changes by it for living tasks and grants begins in the same transaction, and no birth that does not
 * see it is committed after it: it holds the kill epoch, as a kill does. What changes nothing stands in nobody's way.
 * @throws MayflyError `signal_source_only`, 401 when its key is not proven
 */
export async function takeSignals(
  deps: BrokerDeps,
  caller: Caller,
  said: readonly SaidSignal[],
  context: CallContext,
): Promise<readonly SignalAnswer[]> {
  const { active, source, agent } = sourceOf(deps, caller);
  const targets = new Set<string>();
  const run = async (locks: Locks) =>
    await deps.db.transaction(
      { ...locks, catalog: 'shared', signals: source.name },
      async (tx): Promise<Judged | undefined> => {
        // What it may say, and whom it is about, is said by the catalog in force.
        requireRevision(active, await findActiveRevisionNumber(tx));
        const judged = await judge(deps, tx, active, source, said);
        if (judged.changed.length > 0 && locks.kill === undefined) return undefined;
        const { taken, standing, changed, heardAt } = judged;
        if (taken.length > 0) await insertSignals(tx, taken);
        if (standing.length > 0) await putStanding(tx, standing);
        if (heardAt !== null) await hear(tx, source.name, heardAt);
        const moving = changed.map((signal) => ({
          ...signal,
          suspends: isBad(signal) && source.suspends.includes(signal.kind),
        }));
        const moved =
          moving.length === 0 ? new Map<SignalId, Moved>() : await moveBySignals(deps, tx, active, moving, context);
        for (const each of moved.values()) for (const target of each.targets) targets.add(target);
        for (const signal of taken) tellReceived(tx, active, agent, signal, moved.get(signal.id), context);
        step('signal.before');
        return judged;
      },
    );
  const judged = (await run({})) ?? (await run({ kill: 'exclusive' }));
  step('signal.after');
  if (judged === undefined) throw new MayflyError('internal');
  for (const target of targets) deps.alarms.now(target);
  if (judged.changed.length > 0) deps.drift.spread();
  said.forEach(({ kind }, index) => {
    const answer = judged.answers[index];
    const outcome = answer instanceof MayflyError ? 'refused' : (answer?.outcome ?? 'refused');
    deps.observer.signalled(source.name, kind, outcome);
  });
  return judged.answers;
}

function sourceOf(
  deps: BrokerDeps,
  caller: Caller,
): { readonly active: ActiveRevision; readonly source: SignalSource; readonly agent: WorkloadCaller } {
  if (caller.kind !== 'workload') throw new MayflyError('signal_source_only');
  const active = revisionOf(deps, caller);
  const source = active.catalog.signalSources.find(({ workloads }) => namesWorkload(workloads, caller.workload));
  if (source === undefined) throw new MayflyError('signal_source_only');
  if (source.keys !== null) {
    if (caller.keyThumbprint === null) throw new MayflyError('proof_missing');
    if (!source.keys.includes(caller.keyThumbprint))
      throw new MayflyError('proof_key_wrong', 'The catalog names other keys for this source.');
  }
  return { active, source, agent: caller };
}

interface Judged {
  readonly answers: readonly SignalAnswer[];
  /** Those that are new. */
  readonly taken: readonly NewSignal[];
  /** What stands from now on, one for each place. */
  readonly standing: readonly NewSignal[];
  /** Of these, where another value counts now. */
  readonly changed: readonly NewSignal[];
  /** Up to when the source is heard; null: it has said nothing new. */
  readonly heardAt: Date | null;
}

/** Writes nothing. */
async function judge(
  deps: Pick<BrokerDeps, 'ids'>,
  tx: Transaction,
  active: ActiveRevision,
  source: SignalSource,
  said: readonly SaidSignal[],
): Promise<Judged> {
  const words = said.filter((one): one is SaidWord => one.kind !== 'heartbeat');
  const placed = new Map(words.map((word) => [word, placeOf(active.catalog, word)]));
  const places = [...placed.values()].filter((place) => place !== undefined);
  const keys = words.map(({ id }) => id);
  const known = new Map<string, EarlierSignal>(
    keys.length === 0 ? [] : (await findEarlier(tx, source.name, keys)).map((one) => [one.key, one]),
  );
  const before = new Map<string, Standing>(
    places.length === 0 ? [] : (await holdStanding(tx, source.name, places)).map((one) => [placeKey(one), one]),
  );
  let open = places.some(({ kind }) => isBroad(kind)) ? await countOpen(tx, source.name) : 0;
  const isNew = places.some((place) => !before.has(placeKey(place)));
  let kept = isNew ? await countPlaces(tx, source.name, MOST_PLACES) : 0;
  const now = new Map<string, NewSignal>();
  const taken: NewSignal[] = [];
  let heardAt: number | null = null;
  const refuse = (one: SaidSignal): MayflyError | undefined => {
    if (one.kind !== 'heartbeat' && !source.kinds.includes(one.kind)) return new MayflyError('signal_kind_refused');
    const ahead = one.occurredAt.getTime() - tx.now.getTime();
    if (ahead > AHEAD_MILLIS) return new MayflyError('signal_in_future');
    if (-ahead > source.maxAgeSeconds * 1000) return new MayflyError('signal_too_old');
    return undefined;
  };
  const take = (one: SaidSignal): SignalAnswer => {
    const bodyDigestOf = one.kind === 'heartbeat' ? null : bodyDigest(one);
    const earlier = known.get(one.id);
    if (bodyDigestOf !== null && earlier !== undefined)
      return earlier.bodyDigest.equals(bodyDigestOf)
        ? { key: one.id, outcome: earlier.outcome, receivedAt: earlier.receivedAt }
        : new MayflyError('signal_id_used');
    const refusal = refuse(one);
    if (refusal !== undefined) return refusal;
    const hears = () => {
      heardAt = Math.max(heardAt ?? 0, Math.min(one.occurredAt.getTime(), tx.now.getTime()));
    };
    if (one.kind === 'heartbeat' || bodyDigestOf === null) {
      hears();
      return { key: one.id, outcome: 'taken', receivedAt: tx.now };
    }
    if (one.expiresAt !== null && one.expiresAt <= tx.now)
      return new MayflyError('signal_too_old', 'It has expired already.');
    const place = placed.get(one);
    if (place === undefined) return new MayflyError('signal_subject_unknown');
    const stood = now.get(placeKey(place)) ?? before.get(placeKey(place));
    const outcome = stood !== undefined && isOvertaken(one, stood) ? 'superseded' : 'taken';
    if (stood === undefined && kept >= MOST_PLACES) return new MayflyError('signals_full');
    if (outcome === 'taken' && isBroad(place.kind)) {
      const less = stood !== undefined && isBad(stood) && !('lapsed' in stood && stood.lapsed) ? 1 : 0;
      const more = isBad({ kind: place.kind, value: one.value }) ? 1 : 0;
      if (more > less && open >= MOST_OPEN) return new MayflyError('signals_full');
      open += more - less;
    }
    if (stood === undefined) kept += 1;
    hears();
    const signal: NewSignal = {
      ...{ ...place, id: deps.ids.next('sig'), source: source.name, key: one.id, bodyDigest: bodyDigestOf },
      ...{ value: one.value, reason: one.reason, occurredAt: one.occurredAt, expiresAt: one.expiresAt },
      ...{ receivedAt: tx.now, outcome },
    };
    taken.push(signal);
    known.set(one.id, signal);
    if (outcome === 'taken') now.set(placeKey(place), signal);
    return { key: one.id, outcome, receivedAt: tx.now };
  };
  const answers = said.map(take);
  const standing = [...now.values()];
  return {
    ...{ answers, taken, standing },
    changed: standing.filter((signal) => changes(signal, before.get(placeKey(signal)), tx.now)),
    heardAt: heardAt === null ? null : new Date(heardAt),
  };
}

/** Older than what stands; or of the same time and no worse. */
function isOvertaken({ kind, value, occurredAt }: SaidWord, stood: Pick<Standing, 'value' | 'occurredAt'>): boolean {
  const later = occurredAt.getTime() - stood.occurredAt.getTime();
  return later < 0 || (later === 0 && severity({ kind, value }) <= severity({ kind, value: stood.value }));
}

/** Another value counts now than until now. Where nothing is open, a word that nothing is changes nothing. */
function changes(signal: NewSignal, stood: Standing | undefined, now: Date): boolean {
  // Also when it has expired: what hung on it was not told yet.
  if (isBroad(signal.kind) && !isBad(signal)) return stood !== undefined && !stood.lapsed && isBad(stood);
  return counting(stood, now) !== signal.value;
}

/** What of it counted until now. */
function counting(stood: Standing | undefined, now: Date): string | undefined {
  if (stood === undefined || stood.lapsed || (stood.expiresAt !== null && stood.expiresAt <= now)) return undefined;
  return stood.value;
}

function placeKey({ kind, subject, name }: SignalPlace): string {
  return JSON.stringify([kind, subject, name]);
}
