import { denies, type FenceDocument, type FenceForm, policyName, write } from './document.ts';

/** A grant that is to be denied until it is powerless by itself. Times are milliseconds on the target's clock. */
export interface Ended {
  readonly handle: string;
  /** The latest deadline in any of its session policies, with skew to spare. */
  readonly until: number;
  /** Its sessions bear that time, whenever they were issued. Null: nobody knows, and one may still be issued. */
  readonly issuedBy: number | null;
}

/** A grant that is to go on, or is being minted. */
export interface Living {
  readonly handle: string;
  /** Its sessions bear that time. Null: nobody knows. */
  readonly issuedFrom: number | null;
}

/** What this epoch has denied so far. */
export interface FenceState {
  readonly generation: number;
  readonly ended: readonly Ended[];
  /** The cut only moves on. */
  readonly cut: number | null;
  /** Until then some of what is denied by the cut is known by no name: only a form with a cut will do. */
  readonly unnamedUntil: number | null;
}

export interface FenceRequest {
  /** Of the writer: it is in the policy's name. */
  readonly epoch: bigint;
  /** First eight hex digits of the installation. */
  readonly installation: string;
  readonly now: number;
  /** When `live` was read: what was issued since may not be in it. */
  readonly seen: number;
  readonly live: readonly Living[];
  /** Those to be denied in addition to what `previous` denies. */
  readonly ended: readonly Ended[];
  readonly previous: FenceState | null;
  /** Characters that the role has left for the document. */
  readonly budget: number;
  /** Characters of all fences of the role together: each broker has one, and those that brokers before it left stand for a while. */
  readonly quota: number;
  /** A mint is over after that: what is issued by then is known. The cut stays behind it. */
  readonly lagMillis: number;
  /** By name and by the tag alone: of a canary, which does not know what lives. */
  readonly listOnly?: boolean;
}

export interface PlannedFence {
  readonly name: string;
  /** Minified JSON. */
  readonly document: string;
  readonly form: FenceForm;
  readonly says: FenceDocument;
  readonly kept: FenceState;
}

/** Of the quota: beside one document there must be room for that of another broker, and of one that starts anew. */
const shares: Readonly<Record<FenceForm, number>> = {
  list: 1 / 3,
  'list-by-tag': 1 / 3,
  watermark: 1 / 2,
  'role-wide': 1,
};
/** By how much a time of issue may be ahead: clocks are known to about two seconds. */
const youngMillis = 5_000;
/** Left free by all forms but the shortest, so that there is always room for that one. */
const spareCharacters = 400;

/**
 * With what another epoch denies: a document that is planned from it makes that one needless.
 * @param issuedBy By then all of its sessions are issued: a mint's time from now.
 */
export function adopt(state: FenceState | null, { denied, cut, until }: FenceDocument, issuedBy: number): FenceState {
  const added = denied.map((handle) => ({ handle, until, issuedBy }));
  return {
    generation: state?.generation ?? 0,
    ended: merge(state?.ended ?? [], added),
    cut: latest(state?.cut, cut),
    unnamedUntil: latest(state?.unnamedUntil, cut === null ? null : until),
  };
}

/** Whether everything that `other` denies is denied by a document that was planned from that state, too. */
export function supersedes(ours: FenceDocument, state: FenceState, other: FenceDocument): boolean {
  const denied = new Set(state.ended.map(({ handle }) => handle));
  const cutOff = other.cut === null || (ours.cut !== null && ours.cut >= other.cut);
  return cutOff && other.denied.every((handle) => denied.has(handle));
}

/**
 * The whole document of one role, in the first form that fits: each ended grant by name, by both keys or by one; then the cut, whose size
 * goes with what lives instead of what ended; then the whole role. Entries leave when the grant is powerless by itself. Pure.
 * Undefined where the budget has no room for the shortest of them.
 */
export function planFence(request: FenceRequest): PlannedFence | undefined {
  const { now, live, previous, epoch } = request;
  // A mint that was under way when its grant ended is over by then. A renewal's session is given to nobody, and dies at its deadline.
  const minted = now + request.lagMillis;
  const added = request.ended.map((one) => ({ ...one, issuedBy: one.issuedBy ?? minted }));
  const ended = merge(previous?.ended ?? [], added).filter(({ until }) => until > now);
  const second = (millis: number) => Math.floor(millis / 1000) * 1000;
  const shared = {
    generation: (previous?.generation ?? 0) + 1,
    installation: request.installation,
    until: ended.reduce((last, { until }) => Math.max(last, until), Math.max(now, previous?.unnamedUntil ?? 0)),
  };
  const all = sorted(ended);
  const cut = Math.max(second(Math.min(now, request.seen) - request.lagMillis), previous?.cut ?? 0);
  // Issued at the very second of the cut is not before it.
  const since = ended.filter(({ issuedBy }) => issuedBy === null || issuedBy >= cut);
  const before = live.filter(({ issuedFrom }) => issuedFrom === null || issuedFrom < cut);
  const unnamed = (previous?.unnamedUntil ?? 0) > now;
  // What was minted by now must be before it: the next second, after what is known of the youngest.
  const youngest = ended.map(({ issuedBy }) => issuedBy ?? 0).filter((millis) => millis < now + youngMillis);
  const wide = second(youngest.reduce((last, millis) => Math.max(last, millis), now)) + 1000;
  const yet = ended.filter(({ issuedBy }) => issuedBy === null || issuedBy >= wide);
  const candidates: readonly FenceDocument[] = [
    { ...shared, form: 'list', denied: all, cut: null, live: [] },
    { ...shared, form: 'list-by-tag', denied: all, cut: null, live: [] },
    { ...shared, form: 'watermark', denied: sorted(since), cut, live: sorted(before) },
    { ...shared, form: 'role-wide', denied: sorted(yet), cut: wide, live: [] },
    { ...shared, form: 'role-wide', denied: [], cut: wide, live: [] },
  ];
  for (const says of candidates) {
    const { form } = says;
    if (says.cut === null ? unnamed : request.listOnly === true) continue;
    // All other forms deny by the tag alone: that is what is to be seen.
    if (form === 'list' && request.listOnly === true) continue;
    const document = write(says);
    const room = form === 'role-wide' ? request.budget : request.budget - spareCharacters;
    if (document.length > Math.min(room, request.quota * shares[form])) continue;
    const kept = {
      ...{ generation: shared.generation, ended, unnamedUntil: unnamed ? (previous?.unnamedUntil ?? null) : null },
      // Whoever lives and was cut with the whole role is told so, and ends: the next cut need not spare him.
      cut: says.cut ?? previous?.cut ?? null,
    };
    return { name: policyName(epoch), document, form, says, kept };
  }
  return undefined;
}

/** Of two that tell of one grant, the later of each time; one that nobody knows stays unknown. */
function merge(before: readonly Ended[], added: readonly Ended[]): readonly Ended[] {
  const merged = new Map(before.map((one) => [one.handle, one]));
  for (const one of added) {
    const known = merged.get(one.handle);
    merged.set(
      one.handle,
      known === undefined
        ? one
        : {
            handle: one.handle,
            until: Math.max(known.until, one.until),
            issuedBy: known.issuedBy === null || one.issuedBy === null ? null : Math.max(known.issuedBy, one.issuedBy),
          },
    );
  }
  return [...merged.values()];
}

/** Of those that are to go on, whom any of these documents denies all the same. What may still be minted is not known to be. */
export function cutBesides(live: readonly Living[], documents: readonly FenceDocument[]): readonly string[] {
  const cut = live.filter(({ handle, issuedFrom }) => documents.some((one) => denies(one, handle, issuedFrom)));
  return sorted(cut);
}

function latest(one: number | null | undefined, other: number | null): number | null {
  return one === null || one === undefined || (other !== null && other > one) ? other : one;
}

function sorted(of: readonly { readonly handle: string }[]): readonly string[] {
  return of.map(({ handle }) => handle).sort((a, b) => (a < b ? -1 : a > b ? 1 : 0));
}
