import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import {
  type FenceView,
  type Guarantee,
  type Minted,
  type MintRequest,
  type Outcome,
  ProviderError,
  type Ref,
  type Session,
  type Verdict,
  within,
} from '../../../src/provider.ts';
import { connectAs } from './connect.ts';
import type { Credential, Driver, Faults, Foreign, Optional, Params, System, TestedEntitlement } from './driver.ts';
import { NotApplicable } from './not-applicable.ts';
import { Notes, reveal } from './notes.ts';

/** What a case measured. */
export interface Measured {
  /** From the end asked for to the first refusal. Milliseconds. */
  readonly lateMillis?: number;
  /** How many things of ended credentials were found in the system. */
  readonly leftBehind?: number;
}

/** A catalog's entitlement after the provider's own schema, and what is promised of it. */
export interface Tested extends Omit<TestedEntitlement, 'config'> {
  readonly config: unknown;
  readonly guarantee: Guarantee;
}

/** One credential, and what it was made by. */
export interface Live {
  readonly ref: Ref;
  readonly minted: Minted;
  readonly credential: Credential;
  readonly entitlement: Tested;
  readonly params: Params;
}

export interface Wish {
  readonly entitlement?: Tested;
  readonly params?: Params;
  /** Until the deadline. Default: a minute, as far as the guarantee allows. */
  readonly lifeMillis?: number;
  readonly ref?: Ref;
  readonly changes?: Partial<MintRequest>;
  readonly session?: Session;
  readonly signal?: AbortSignal;
}

/** How much the clocks of broker and target may differ. Milliseconds. */
export const SKEW_MILLIS = 5_000;

const optional = ['exceed', 'open', 'foreign', 'faults', 'rights', 'restart', 'replace'] as const;

/** What is tested: the provider connected to its system, as the broker connects it. */
export class Subject {
  readonly driver: Driver;
  readonly system: System;
  readonly notes: Notes;
  readonly session: Session;
  /** Made before anything else, and looked at to the end. */
  readonly foreign: Foreign | undefined;
  readonly tested: readonly Tested[];
  readonly #sessions: Session[];
  /** What was minted, or may have been, and not ended. */
  readonly #live = new Map<string, Ref>();
  #writer = 0n;
  /** The last use of the one document, where the fence is one. */
  #document: Promise<unknown> = Promise.resolve();

  static async start(driver: Driver): Promise<Subject> {
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
      return new Subject({ driver, system, notes, session, tested, foreign: await system.foreign?.() });
    } catch (error) {
      await system.stop();
      throw error;
    }
  }

  private constructor(parts: Pick<Subject, 'driver' | 'system' | 'notes' | 'session' | 'tested' | 'foreign'>) {
    this.driver = parts.driver;
    this.system = parts.system;
    this.notes = parts.notes;
    this.session = parts.session;
    this.tested = parts.tested;
    this.foreign = parts.foreign;
    this.#sessions = [parts.session];
  }

  /** The entitlement for what is not about one in particular. */
  get first(): Tested {
    const [first] = this.tested;
    assert.ok(first !== undefined, 'A driver has one entitlement at least.');
    return first;
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
  connect(installation = this.system.installation): Session {
    const session = connectAs(this.driver, this.system, this.notes, installation);
    this.#sessions.push(session);
    return session;
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
    if (session === this.session) this.#live.set(ref.handle, ref);
    const minted = await session.mint(ref, request, wish.signal ?? this.signal());
    const credential = reveal(minted.secret);
    for (const secret of this.system.secretsOf(credential)) this.notes.mustHide(secret);
    const live = { ref: { ...ref, facts: minted.facts }, minted, credential, entitlement, params };
    if (session === this.session) this.#live.set(ref.handle, live.ref);
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

  async fence(refs: readonly Ref[], signal = this.signal(), session = this.session): Promise<readonly Outcome[]> {
    for (const { handle } of refs) this.#live.delete(handle);
    return await this.#alone(session, (view) => session.fence(refs, signal, view));
  }

  verify(refs: readonly Ref[], signal = this.signal()): Promise<readonly Verdict[]> {
    return this.session.verify(refs, signal);
  }

  async reap(refs: readonly Ref[], signal = this.signal()): ReturnType<Session['reap']> {
    return await this.#alone(this.session, (view) => this.session.reap(refs, signal, view));
  }

  /** For a fence that is one document: one use at a time, each with a view and a larger number. */
  #alone<T>(session: Session, call: (view?: FenceView) => Promise<T>): Promise<T> {
    if (session.oneDocument !== true) return call();
    const turn = this.#document.then(() => {
      this.#writer += 1n;
      return call({ live: [...this.#live.values()], writer: this.#writer, at: new Date() });
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

  /** One of the faults that not every proxy can make. */
  needFault<Name extends 'garble' | 'hold'>(name: Name): NonNullable<Faults[Name]> {
    const fault = this.need('faults')[name];
    if (fault === undefined) throw new NotApplicable(reasonFor(this.system, `faults.${name}`));
    return fault;
  }

  /** After each case: what it broke is whole, and what it made is ended. */
  async tidy(): Promise<void> {
    await this.system.faults?.heal();
    const left = [...this.#live.values()];
    if (left.length > 0) await this.fence(left);
  }

  async stop(): Promise<void> {
    this.notes.stop();
    await Promise.all(this.#sessions.map((session) => session.close()));
    await this.system.stop();
  }
}

function reasonFor(system: System, name: Optional): string {
  const why = system.without?.[name] ?? '';
  assert.notEqual(why, '', `The driver has no \`${name}\`: it must say in \`without\` why not.`);
  return why;
}
