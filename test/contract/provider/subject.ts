import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import {
  type FenceView,
  type MintRequest,
  ProviderError,
  type Ref,
  type Session,
  type Verdict,
  within,
} from '../../../src/provider.ts';
import { connectAs } from './connect.ts';
import type { Driver, Faults, Foreign, Optional, System, Way } from './driver.ts';
import { Ledger } from './ledger.ts';
import type { Extent, Live, Tested, Wish } from './live.ts';
import { NotApplicable } from './not-applicable.ts';
import { Notes, reveal } from './notes.ts';

/** How long a case may take, where the driver does not say. A minute is plenty for most; waiting for deadlines takes the rest. Milliseconds. */
export const CASE_MILLIS = 180_000;

/** How much the clocks of broker and target may differ. Milliseconds. */
export const SKEW_MILLIS = 5_000;

const optional = ['exceed', 'open', 'foreign', 'faults', 'behind', 'rights', 'restart', 'replace'] as const;

/** What is tested: the provider connected to its system, as two replicas of a broker connect it. */
export class Subject {
  readonly driver: Driver;
  readonly system: System;
  readonly notes: Notes;
  readonly extent: Extent;
  /** What was made, and of it what lives. */
  readonly ledger = new Ledger();
  /** Made before anything else, and looked at to the end. */
  readonly foreign: Foreign | undefined;
  readonly tested: readonly Tested[];
  #session: Session;
  #ender: Session;
  /** All that were opened, each with the installation that it is of. */
  readonly #sessions = new Map<Session, string>();
  readonly #apart: { readonly way: Way; readonly session: Session }[] = [];
  #writer = 0n;
  /** The last use of the one document, where the fence is one. */
  #document: Promise<unknown> = Promise.resolve();

  static async start(driver: Driver, extent: Extent = {}): Promise<Subject> {
    const system = await driver.start();
    try {
      const notes = new Notes();
      for (const secret of Object.values(system.secrets)) notes.mustHide(secret);
      for (const name of optional) if (system[name] === undefined) reasonFor(system, name);
      const session = connectAs(driver, system, notes, system.installation);
      const tested: Tested[] = [];
      for (const { config, ...rest } of system.entitlements) {
        const parsed: unknown = driver.provider.entitlementSchema.parse(config);
        const guarantee = await session.guarantee(parsed, within(system.callMillis ?? 30_000));
        tested.push({ ...rest, config: parsed, guarantee });
      }
      assertPatient(driver, system, tested);
      return new Subject({ driver, system, notes, extent, tested, foreign: await system.foreign?.() }, session);
    } catch (error) {
      await system.stop();
      throw error;
    }
  }

  private constructor(
    parts: Pick<Subject, 'driver' | 'system' | 'notes' | 'extent' | 'tested' | 'foreign'>,
    session: Session,
  ) {
    this.driver = parts.driver;
    this.system = parts.system;
    this.notes = parts.notes;
    this.extent = parts.extent;
    this.tested = parts.tested;
    this.foreign = parts.foreign;
    this.#session = session;
    this.#sessions.set(session, parts.system.installation);
    this.#ender = this.connect();
  }

  /** By which credentials are made. */
  get session(): Session {
    return this.#session;
  }

  /** By which they are ended and looked at: another one, which shares no memory of a session with that which made them. */
  get ender(): Session {
    return this.#ender;
  }

  /** As after a restart of the broker: nothing of what the sessions knew is there any more. */
  async startAnew(): Promise<void> {
    const before = [this.#session, this.#ender];
    [this.#session, this.#ender] = [this.connect(), this.connect()];
    await Promise.all(before.map((session) => session.close()));
    for (const session of before) this.#sessions.delete(session);
  }

  /** The entitlement for what is not about one in particular. */
  get first(): Tested {
    const [first] = this.tested;
    assert.ok(first !== undefined, 'A driver has one entitlement at least.');
    return first;
  }

  /** Those that the cases about the mechanism look at. */
  get mechanisms(): readonly Tested[] {
    return this.extent.bounded === true ? [this.first] : this.tested;
  }

  /** Does it for each mechanism, or each of these, at once. What fails says of which. @throws NotApplicable where it is so for all. */
  async each(work: (entitlement: Tested) => Promise<unknown>, of: readonly Tested[] = this.mechanisms): Promise<void> {
    const came = await Promise.allSettled(of.map(work));
    const failed = came.flatMap((one, index) =>
      one.status === 'rejected' ? [{ error: one.reason as unknown, name: of[index]?.name ?? '' }] : [],
    );
    const [first] = [...failed.filter(({ error }) => !(error instanceof NotApplicable)), ...failed];
    if (first === undefined || (first.error instanceof NotApplicable && failed.length < of.length)) return;
    const { error, name } = first;
    if (error instanceof assert.AssertionError) error.message = `${name}: ${error.message}`;
    throw error;
  }

  get graceMillis(): number {
    return this.system.graceMillis ?? 5_000;
  }

  now(): number {
    return this.system.clock?.now() ?? Date.now();
  }

  /** Lets time pass, by the system's clock where it can be turned. */
  async pass(millis: number): Promise<void> {
    if (this.system.clock !== undefined) this.system.clock.turn(millis);
    await new Promise((resolve) => setTimeout(resolve, this.system.clock === undefined ? millis : 1));
  }

  signal(millis = this.system.callMillis ?? 30_000): AbortSignal {
    return within(millis);
  }

  /** A session of its own, closed at the end. */
  connect(installation = this.system.installation, connection = this.system.connection): Session {
    const session = connectAs(this.driver, { ...this.system, connection }, this.notes, installation);
    this.#sessions.set(session, installation);
    return session;
  }

  /** A session with a way of its own, closed at the end. @throws NotApplicable */
  async apart(): Promise<{ readonly way: Way; readonly session: Session }> {
    const faults = this.need('faults');
    if (faults.apart === undefined) throw new NotApplicable(reasonFor(this.system, 'faults.apart'));
    const way = await faults.apart();
    const one = { way, session: this.connect(undefined, way.connection) };
    this.#apart.push(one);
    return one;
  }

  /** A life for what is to be clean at the end of its case: some targets keep something until the deadline. Milliseconds. */
  lifeToClean({ guarantee }: Tested): number {
    return 1000 * Math.max(guarantee.min_ttl_seconds, this.system.shortestLifeSeconds ?? 30);
  }

  /** The shortest life that is worth waiting for. Milliseconds. */
  shortLife({ guarantee }: Tested): number {
    return 1000 * Math.max(guarantee.min_ttl_seconds, this.system.shortestLifeSeconds ?? 2);
  }

  ref(lifeMillis = 60_000, session = this.session): Ref {
    const grantId = randomUUID();
    return { grantId, handle: session.reserve(grantId), facts: null, deadline: new Date(this.now() + lifeMillis) };
  }

  request(ref: Ref, entitlement = this.first, changes: Partial<MintRequest> = {}): MintRequest {
    return {
      grantId: ref.grantId,
      entitlement: entitlement.name,
      config: entitlement.config,
      params: entitlement.params?.[0] ?? {},
      deadline: ref.deadline,
      notAfter: new Date(ref.deadline.getTime() + 60_000),
      mintBy: new Date(this.now() + 30_000),
      ...changes,
    };
  }

  async mint(wish: Wish = {}): Promise<Live> {
    const { entitlement = this.first, session = this.session } = wish;
    const { min_ttl_seconds: least, max_ttl_seconds: most } = entitlement.guarantee;
    const usual = entitlement.guarantee.revocation === 'expiry-only' ? this.lifeToClean(entitlement) : 60_000;
    const life = wish.lifeMillis ?? Math.min(Math.max(usual, 1000 * least), 1000 * most);
    const ref = wish.ref ?? this.ref(life, session);
    const params = wish.params ?? entitlement.params?.[0] ?? {};
    const request = this.request(ref, entitlement, { params, ...wish.changes });
    const isOurs = this.#sessions.get(session) === this.system.installation;
    if (isOurs) this.ledger.note(ref, entitlement);
    const minted = await session.mint(ref, request, wish.signal ?? this.signal());
    const credential = reveal(minted.secret);
    for (const secret of this.system.secretsOf(credential)) this.notes.mustHide(secret);
    for (const value of this.system.sensitiveIn?.(minted.facts) ?? []) this.notes.mustHideButInFacts(value);
    const live = { ref: { ...ref, facts: minted.facts }, minted, credential, entitlement, params };
    if (isOurs) this.ledger.note(live.ref, entitlement);
    return live;
  }

  /** One that lives briefly. Where a slow machine is too late for its deadline, one that lives longer. */
  async mintBriefly(wish: Wish, lifeMillis: number): Promise<Live> {
    for (let longer = 1; ; longer *= 2) {
      try {
        return await this.mint({ ...wish, lifeMillis: longer * lifeMillis });
      } catch (error) {
        if (!(error instanceof ProviderError) || longer === 8) throw error;
      }
    }
  }

  async uses({ credential, entitlement, params }: Live): Promise<boolean> {
    const asked = Object.keys(params).length === 0 ? undefined : params;
    return (await this.system.use(credential, entitlement.name, asked)) === 'works';
  }

  async fence(refs: readonly Ref[], signal = this.signal(), session = this.ender): ReturnType<Session['fence']> {
    this.ledger.ended(refs);
    return await this.#alone(session, (view) => session.fence(refs, signal, view));
  }

  verify(refs: readonly Ref[], signal = this.signal(), session = this.ender): Promise<readonly Verdict[]> {
    return session.verify(refs, signal);
  }

  async reap(refs: readonly Ref[], signal = this.signal(), session = this.ender): ReturnType<Session['reap']> {
    return await this.#alone(session, (view) => session.reap(refs, signal, view));
  }

  /** For a fence that is one document: one use at a time, each with a view and a larger number. */
  #alone<T>(session: Session, call: (view?: FenceView) => Promise<T>): Promise<T> {
    if (session.oneDocument !== true) return call();
    const turn = this.#document.then(() => {
      this.#writer += 1n;
      return call({ live: this.ledger.live, writer: this.#writer, at: new Date() });
    });
    this.#document = turn.catch(() => {});
    return turn;
  }

  /** @throws NotApplicable with what the driver says of it. */
  need<Name extends (typeof optional)[number]>(name: Name): NonNullable<System[Name]> {
    const member = this.system[name];
    if (member === undefined) throw new NotApplicable(reasonFor(this.system, name));
    return member;
  }

  /** One of the faults that not every proxy can make. @throws NotApplicable */
  needFault<Name extends 'garble' | 'lies'>(name: Name): NonNullable<Faults[Name]> {
    const fault = this.need('faults')[name];
    if (fault === undefined) throw new NotApplicable(reasonFor(this.system, `faults.${name}`));
    return fault;
  }

  /** After each case: what it broke is whole, and ways of its own are gone. */
  async heal(): Promise<void> {
    await this.system.faults?.heal();
    for (const { way, session } of this.#apart.splice(0)) {
      await way.close();
      await session.close();
      this.#sessions.delete(session);
    }
  }

  async stop(): Promise<void> {
    this.notes.stop();
    await this.heal();
    await Promise.all([...this.#sessions.keys()].map((session) => session.close()));
    await this.system.stop();
  }
}

function reasonFor(system: System, name: Optional): string {
  const why = system.without?.[name] ?? '';
  assert.notEqual(why, '', `The driver has no \`${name}\`: it must say in \`without\` why not.`);
  return why;
}

/** @throws AssertionError where a case would be over before the lives that it waits for. */
function assertPatient({ patienceMillis = CASE_MILLIS }: Driver, system: System, tested: readonly Tested[]): void {
  if (system.clock !== undefined) return;
  const seconds = Math.max(
    ...tested.map(({ guarantee }) => guarantee.min_ttl_seconds),
    system.shortestLifeSeconds ?? 0,
  );
  // Twice, since what was too late for its deadline is made again.
  const needed = 2 * 1000 * seconds + 2 * SKEW_MILLIS;
  const says = `Its shortest life is ${seconds} s, and cases wait for that: the driver needs a \`clock\`, or \`patienceMillis\` of ${needed}.`;
  assert.ok(patienceMillis >= needed, says);
}
