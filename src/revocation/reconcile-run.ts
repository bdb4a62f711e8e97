import { randomIds } from '../domain/ids.ts';
import { step } from '../domain/step.ts';
import type { Found, Session } from '../provider.ts';
import type { Transaction } from '../store/database.ts';
import { forgetUnknown, type Marked, noteUnknown, takeInOrphans } from '../store/orphans.ts';
import { type AliveGrant, findAlive, findKnown, type KnownGrant, recordSightings } from '../store/reconcile-page.ts';
import { keepRun, type ReconcileResult, type RunClaim } from '../store/reconciliations.ts';
import { endChanged } from './end-changed.ts';
import { engineEvent } from './evidence.ts';
import type { ReconcileDeps } from './reconcile-deps.ts';
import { codes, findOpen, listPage, lookAtAlive, type Seen } from './reconcile-look.ts';
import { type Back, takeBack } from './returned.ts';

/** A run's claim lives this long after its last beat. */
const LEASE_SECONDS = 30;
const ALIVE_AT_ONCE = 500;
const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/;

export interface RunOptions {
  readonly installation: string;
  /** Longer than any mint can be in flight. */
  readonly graceSeconds: number;
  readonly leaseSeconds?: number;
}

export type Counts = Omit<ReconcileResult, 'outcome' | 'says'>;

export function leaseOf({ leaseSeconds }: RunOptions): number {
  return leaseSeconds ?? LEASE_SECONDS;
}

/** Another replica took the run over. */
export class RunLost extends Error {}

/** One comparison of a target with the store: page by page, each page's findings in one transaction behind the run's claim. */
export class ReconcileRun {
  readonly #deps: ReconcileDeps;
  readonly #claim: RunClaim;
  readonly #session: Session;
  readonly #options: RunOptions;
  readonly #signal: AbortSignal;
  readonly #counts = {
    ...{ listed: 0, orphans: 0, waiting: 0, lost: 0, returned: 0, drifted: 0, unverified: 0 },
    ...{ changed: 0, held: 0, uninspected: 0 },
  };
  readonly #changed: AliveGrant[] = [];
  #alive = 0;

  constructor(deps: ReconcileDeps, claim: RunClaim, session: Session, options: RunOptions, signal: AbortSignal) {
    this.#deps = deps;
    this.#claim = claim;
    this.#session = session;
    this.#options = options;
    this.#signal = signal;
  }

  get counts(): Counts {
    return this.#counts;
  }

  /** Without it there is nothing to compare. */
  get listable(): boolean {
    return this.#session.list !== undefined;
  }

  /** @throws RunLost, ProviderError, MayflyError */
  async run(): Promise<void> {
    let after = '';
    for (;;) {
      const page = await listPage(this.#session, after, this.#signal);
      const upTo = page.at(-1)?.handle ?? null;
      await this.#compare(page, after, upTo);
      if (upTo === null) break;
      after = upTo;
    }
    step('forget-unknown.before');
    await this.#deps.db.transaction({}, (tx) => forgetUnknown(tx, this.#claim.target));
    step('forget-unknown.after');
    await this.#endChanged();
  }

  /** @param upTo The last handle of the page; null behind the last page. */
  async #compare(page: readonly Found[], after: string, upTo: string | null): Promise<void> {
    const { db } = this.#deps;
    const marked = page.flatMap((found) => this.#ours(found));
    this.#counts.listed += page.length;
    this.#counts.unverified += page.length - marked.length;
    const known = await findKnown(
      db,
      marked.map(({ grantId }) => grantId),
    );
    const unknown = marked.filter(({ grantId }) => !known.has(grantId));
    const clean = marked.filter(({ grantId }) => {
      const grant = known.get(grantId);
      return grant?.revocation === 'clean' && grant.target === this.#claim.target;
    });
    const back = [
      ...(await this.#stillThere(clean, after)),
      ...(await this.#openAgain(marked, known)),
      ...(await this.#givenUp(marked, known)),
    ];
    const seen = await this.#lookAtAlive(new Set(page.map(({ handle }) => handle)), after, upTo);
    const found = back.length + unknown.length + seen.length;
    await db.transaction({}, async (tx) => {
      if (!(await keepRun(tx, this.#claim, leaseOf(this.#options)))) throw new RunLost();
      this.#counts.returned += await takeBack(this.#deps, this.#claim.target, tx, back);
      await this.#takeIn(tx, unknown);
      await this.#tell(tx, seen);
      if (found > 0) step('compare.before');
    });
    if (found > 0) step('compare.after');
    if (back.length + unknown.length > 0) this.#deps.wake(this.#claim.target);
  }

  /** Once all of the target was seen: too many at once are not believed. */
  async #endChanged(): Promise<void> {
    const keep = (tx: Transaction) => keepRun(tx, this.#claim, leaseOf(this.#options));
    const found = { changed: this.#changed, alive: this.#alive };
    const { ended, held } = await endChanged(this.#deps, this.#claim.target, this.#session, found, keep, this.#signal);
    this.#counts.changed += ended;
    this.#counts.held += held;
  }

  #ours({ handle, grantId, installation, facts }: Found): readonly Marked[] {
    const ours = grantId !== null && UUID.test(grantId) && installation === this.#options.installation;
    return ours ? [{ handle, grantId, facts }] : [];
  }

  /** What is contained stands in the target until it is cleaned, but can not be used. */
  async #openAgain(marked: readonly Marked[], known: ReadonlyMap<string, KnownGrant>): Promise<readonly Back[]> {
    const contained = marked.flatMap((one) => {
      const { revocation, target, deadline, claimNumber } = known.get(one.grantId) ?? {};
      const isContained = revocation === 'contained' && target === this.#claim.target;
      return isContained && deadline && claimNumber ? [{ ...one, deadline, claimNumber }] : [];
    });
    return await findOpen(this.#session, contained, this.#signal);
  }

  /** An operator's word that it is done for holds no longer than the target says nothing else. */
  async #givenUp(marked: readonly Marked[], known: ReadonlyMap<string, KnownGrant>): Promise<readonly Back[]> {
    const writtenOff = marked.flatMap((one) => {
      const { revocation, target, deadline } = known.get(one.grantId) ?? {};
      return revocation === 'written_off' && target === this.#claim.target && deadline ? [{ ...one, deadline }] : [];
    });
    return await findOpen(this.#session, writtenOff, this.#signal);
  }

  /** What was cleaned between the list and the look into the store is not back: it is no longer listed. */
  async #stillThere(clean: readonly Marked[], after: string): Promise<readonly Marked[]> {
    if (clean.length === 0) return [];
    const again = new Set((await listPage(this.#session, after, this.#signal)).map(({ handle }) => handle));
    return clean.filter(({ handle }) => again.has(handle));
  }

  async #lookAtAlive(listed: ReadonlySet<string>, after: string, upTo: string | null): Promise<readonly Seen[]> {
    const { target, startedAt } = this.#claim;
    const seen: Seen[] = [];
    for (let from = after; ; ) {
      const alive = await findAlive(this.#deps.db, target, startedAt, from, upTo, ALIVE_AT_ONCE);
      const looked = await lookAtAlive(this.#deps, this.#session, alive, listed, this.#signal);
      seen.push(...looked.seen);
      this.#alive += alive.length;
      this.#changed.push(...looked.changed);
      this.#counts.uninspected += looked.uninspected;
      const last = alive.at(-1);
      if (last === undefined || alive.length < ALIVE_AT_ONCE) return seen;
      from = last.handle;
    }
  }

  async #takeIn(tx: Transaction, unknown: readonly Marked[]): Promise<void> {
    if (unknown.length === 0) return;
    const { target } = this.#claim;
    const handles = unknown.map(({ handle }) => handle);
    const ripe = await noteUnknown(tx, target, handles, this.#options.graceSeconds);
    const found = unknown.flatMap((one) => {
      const firstSeenAt = ripe.get(one.handle);
      return firstSeenAt === undefined ? [] : [{ ...one, firstSeenAt }];
    });
    this.#counts.waiting += unknown.length - found.length;
    if (found.length === 0) return;
    const orphans = await takeInOrphans(tx, target, found, this.#deps.revision(), randomIds);
    for (const orphan of orphans) {
      const payload = { first_seen_at: orphan.firstSeenAt.toISOString(), says: 'orphan found' };
      tx.record(engineEvent('grant.orphaned', this.#deps, target, orphan, payload));
      const about = { target, grant_id: orphan.grantId, handle: orphan.handle, alert: 'orphan' };
      this.#deps.log(about, 'an orphan was found: it bears our mark and is unknown here; it is revoked');
    }
    this.#counts.orphans += orphans.length;
    if (orphans.length > 0) this.#deps.found.orphaned(target, orphans.length);
  }

  async #tell(tx: Transaction, seen: readonly Seen[]): Promise<void> {
    if (seen.length === 0) return;
    const active = await recordSightings(
      tx,
      seen.map(({ grant, lost, drift, usedSince }) => ({
        grantId: grant.grantId,
        lost,
        drift: drift === undefined ? grant.drift : codes(drift).split(',').filter(Boolean),
        usedSince,
      })),
    );
    for (const one of seen) if (active.has(one.grant.grantId)) this.#tellOf(tx, one);
  }

  #tellOf(tx: Transaction, { grant, lost, drift, used }: Seen): void {
    const { target } = this.#claim;
    if (lost) {
      tx.record(engineEvent('grant.lost', this.#deps, target, grant, { handle: grant.handle }));
      const about = { target, grant_id: grant.grantId, handle: grant.handle, alert: 'lost' };
      this.#deps.log(about, 'a living grant is gone from the target, and nobody ended it here');
      this.#counts.lost += 1;
      this.#deps.found.lost(target, 1);
    }
    if (drift !== undefined) {
      tx.record(engineEvent('grant.drifted', this.#deps, target, grant, { drift }));
      this.#deps.log({ target, grant_id: grant.grantId, drift: codes(drift) }, 'a credential is not what was granted');
      if (drift.length > 0) {
        this.#counts.drifted += 1;
        this.#deps.found.drifted(target, 1);
      }
    }
    if (used !== undefined) {
      const sessions = used.sessions.map(({ clientAddress, applicationName, since }) => ({
        ...{ address: clientAddress, application: applicationName, since: since.toISOString() },
      }));
      tx.record(engineEvent('grant.used', this.#deps, target, grant, { total: used.total, sessions }));
    }
  }
}
