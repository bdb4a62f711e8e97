import type { Facts, Provider } from '../../../src/provider.ts';

/**
 * What the contract suite must know of the real system behind a provider. Everything here goes to the system by itself, never
 * through the provider: the suite believes only what it sees.
 */
export interface Driver {
  readonly provider: Provider;
  /** Starts a system of its own, with all that an administrator would prepare. Once for all cases, which come one after another. */
  start(): Promise<System>;
  /**
   * The most that one case may take. Milliseconds; default three minutes. Where a life can not be shorter than that, and time can not be
   * turned on, give more: a case waits for some of these lives.
   */
  readonly patienceMillis?: number;
}

/** What a mint handed out, revealed: the members of `credential` in the broker's answer. */
export type Credential = Readonly<Record<string, unknown>>;
export type Params = Readonly<Record<string, string | number | boolean>>;

/** One entitlement as it stands in a catalog. */
export interface TestedEntitlement {
  readonly name: string;
  /** Its `provider` section, as read from YAML: the suite takes it through the provider's schema. */
  readonly config: unknown;
  /** Two bindings that reach different things; only of a provider that binds params. It is always minted with one of them. */
  readonly params?: readonly [Params, Params];
}

/** What a try to get in came to. Anything else than these two (no network, no such table) must be thrown. */
export type Access = 'works' | 'refused';

export interface Attempt {
  /** What was tried, for a person: `DELETE on invoices`. */
  readonly what: string;
  readonly came: Access;
}

export interface System {
  /** The target's `connection` as read from YAML, for the provider's schema: through the proxy of {@link faults} where there is one. */
  readonly connection: Readonly<Record<string, unknown>>;
  /** The installation id, a UUID, of the broker that the system was prepared for. */
  readonly installation: string;
  /** What the references in `connection` stand for: `{'env:BROKER_PASSWORD': '…'}`. None of these values may ever be seen. */
  readonly secrets: Readonly<Record<string, string>>;
  /**
   * All of them are minted, used, ended, cut off, raced and measured against their guarantee. Give one for each way in which the provider
   * makes and ends something. The first one should be one that can be ended early, if there is any: a bounded run looks at it alone
   * where the mechanism is looked at.
   */
  readonly entitlements: readonly [TestedEntitlement, ...TestedEntitlement[]];

  /** Really uses it, as an agent would, with a login of its own: with params, on what those params reach. */
  use(credential: Credential, entitlement: string, params?: Params): Promise<Access>;
  /** The values in it that must never be seen: a password, a token. Not its handle, not an address. */
  secretsOf(credential: Credential): readonly string[];
  /** The values in facts that must be seen nowhere else, since the system takes them for more than a name: the id of a lease. */
  sensitiveIn?(facts: Facts): readonly string[];
  /**
   * Facts that lie, and bear the seal that the provider puts on its own: each with what is wrong in it. Only where there is such a
   * seal, a digest say: what breaks that is tried anyway.
   */
  forge?(
    ref: { readonly grantId: string; readonly handle: string },
    facts: Facts,
  ): readonly (readonly [string, Facts])[];
  /**
   * What there is of a handle, by an administrator's own look: identities, sessions, rights, leases; a sentence each. What a fence leaves
   * on purpose to stop a late mint is not meant. Empty: nothing is left.
   */
  look(handle: string, facts: Facts | null): Promise<readonly string[]>;
  stop(): Promise<void>;

  /** Tries what the entitlement does not allow. All must be refused. */
  exceed?(credential: Credential, entitlement: string): Promise<readonly Attempt[]>;
  /** A login or connection that stays open, as an agent would hold it. */
  open?(credential: Credential, entitlement: string): Promise<OpenSession>;
  /** Makes something near ours that is not ours, as alike as can be: a name of the same form, the same role, no mark. */
  foreign?(): Promise<Foreign>;
  readonly faults?: Faults;
  /** Where the system makes a credential in yet another one (a secrets engine in a database): the way from it to that. */
  readonly behind?: Pick<Way, 'hold'>;
  /** What the broker may do in the system is taken from it, and given back. */
  readonly rights?: { lose(): Promise<void>; restore(): Promise<void> };
  /**
   * The system goes down and comes back with its data, at the same address. Resolves when it answers again. Of a service that never
   * goes down all connections end.
   */
  restart?(): Promise<void>;
  /** Another system, prepared for the same broker, stands behind the address until the answer is called. */
  replace?(): Promise<() => Promise<void>>;
  /** The one clock of the system and of the suite, where it can be turned on. Without it the suite waits. */
  readonly clock?: { now(): number; turn(millis: number): void };

  /** One sentence for each optional member that is missing: why. It is printed in place of a result. */
  readonly without?: Readonly<Partial<Record<Optional, string>>>;
  /** For a slow system: how long a call may go on after its signal (default 5 s), and how long any single call may take (default 30 s). */
  readonly graceMillis?: number;
  readonly callMillis?: number;
  /**
   * The shortest life that cases ask for where they wait for its end (default 2 s, or the guarantee's `min_ttl_seconds`). Where `reap` asks
   * for the deadline before all is clean, give it: those cases wait for that too, and ask for 30 s without it.
   */
  readonly shortestLifeSeconds?: number;
  /** How long an end may stay unproven where a mint was cut off and nothing is known of it (default 30 s). */
  readonly unprovenMillis?: number;
}

/** Optional members of {@link System}; `faults.…` of its {@link Faults}. */
export type Optional =
  | 'exceed'
  | 'open'
  | 'foreign'
  | 'faults'
  | 'faults.apart'
  | 'faults.garble'
  | 'faults.lies'
  | 'behind'
  | 'rights'
  | 'restart'
  | 'replace';

export interface OpenSession {
  works(): Promise<Access>;
  close(): Promise<void>;
}

export interface Foreign {
  /** A handle that names it, where it has one: an end of that handle must leave it alone. */
  readonly handle?: string;
  /** What of it is no longer as it was, a sentence each. */
  harmed(): Promise<readonly string[]>;
}

/**
 * A proxy between provider and system; what the driver itself does goes past it. {@link tcpFaults} is one for anything that speaks TCP.
 * One fault stands at a time, until `heal`.
 */
export interface Faults {
  /** Requests are taken and never answered. */
  hang(): void | Promise<void>;
  /** Connections that are open end, new ones are refused. */
  refuse(): void | Promise<void>;
  /** Each answer comes so much later. */
  slow(millis: number): void | Promise<void>;
  /** Answers come at once and are nonsense, and nothing reaches the system. */
  garble?(): void | Promise<void>;
  /** A way of its own for one session, where nothing of another one comes by. Closed by the suite. */
  apart?(): Promise<Way>;
  /** Answers of the system's own form that are not true: {@link Way.lie} gives them. */
  readonly lies?: readonly Lie[];
  heal(): void | Promise<void>;
}

/** A way between one session and the system. */
export interface Way {
  /** The target's `connection` that leads over it. */
  readonly connection: Readonly<Record<string, unknown>>;
  /**
   * Lets so many pieces of what is sent pass (a request over HTTP is one, each exchange of a chattier protocol is another), and holds the
   * next one on the way, whole. It arrives when it is released, whatever its sender did meanwhile. All else passes.
   */
  hold(after: number): Held;
  /** Lets so many pieces pass, and answers each that follows with the lie. Nothing reaches the system then. */
  lie(lie: Lie, after: number): void;
  /** How many pieces have come by. */
  readonly pieces: number;
  /** The sender is dead: its connections end, and it gets no other. What is held, and what was sent before, still arrives. */
  cut(): void;
  close(): Promise<void>;
}

export interface Held {
  /** Settles when a piece is held. */
  readonly reached: Promise<void>;
  release(): void;
  /** Settles when the system has answered what was held, or hung up. */
  readonly answered: Promise<void>;
}

/** An answer as the system might give one, and which is wrong: not found, forbidden, empty; or the answer about another. */
export interface Lie {
  /** For a person: `404 {"errors":[]}`. */
  readonly what: string;
  /** A list that is empty in truth looks just like it: a list that takes it for one is forgiven. */
  readonly isEmptyList?: true;
  /** To one piece of what was sent. */
  answer(piece: Buffer): Buffer | string;
}
