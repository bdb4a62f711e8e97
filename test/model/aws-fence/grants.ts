import { createHash } from 'node:crypto';
import { handleOf } from '../../../providers/aws-sts/handle.ts';
import type { Ended, Living } from '../../../providers/aws-sts/plan.ts';
import type { JudgedSession } from './judge.ts';
import type { Scenario } from './simulate.ts';
import type { Chance, Timeline } from './timeline.ts';

interface ModelSession extends JudgedSession {
  /** A role-wide fence denies it, and its grant was ended for that: said aloud, and so no fault. */
  lost: boolean;
  /** Of a renewal that the store took no notice of: its secret was given to nobody. It dies at a deadline that no row has. */
  unheld: boolean;
}

/** What the store has of a grant, and what AWS has of it. Model time, but for its sessions. */
export interface ModelGrant {
  readonly handle: string;
  readonly role: number;
  readonly sessions: ModelSession[];
  /** What the store has of its deadline, by our clock. */
  deadline: number;
  /** What the store knows of its sessions, by AWS's clock; null while one is being minted, and for ever after a crash. */
  facts: { readonly deadline: number } | null;
  /** What its sessions bear, by our clock when it was minted, in seconds. */
  issued: number;
  endedAt: number | undefined;
  /** From then on it must be denied everywhere. */
  containedAt: number | undefined;
}

/** Later than its deadline by that, a session is powerless by everybody's clock. */
const SKEW_MS = 5000;
/** When whoever sweeps ends what was not minted. */
const MINT_BY_MS = 30_000;

/** Grants that come, are minted, renewed, crash and end. */
export class Grants {
  readonly all: ModelGrant[] = [];
  sessions = 0;
  /** Called with each grant when it ends. */
  onEnd: (grant: ModelGrant) => void = () => {};
  readonly #byRole: Set<ModelGrant>[];
  readonly #timeline: Timeline;
  readonly #chance: Chance;
  readonly #scenario: Scenario;
  readonly #minted: (grant: ModelGrant) => void;

  constructor(timeline: Timeline, chance: Chance, scenario: Scenario, minted: (grant: ModelGrant) => void) {
    this.#timeline = timeline;
    this.#chance = chance;
    this.#scenario = scenario;
    this.#minted = minted;
    this.#byRole = Array.from({ length: scenario.roles }, () => new Set());
  }

  start(): void {
    const next = () => {
      this.#open();
      this.#timeline.after(this.#chance.exponential(1000 / this.#scenario.grantsPerSecond), next);
    };
    this.#timeline.after(0, next);
  }

  /** Those of a role that AWS may still know a session of, or may yet. */
  known(role: number): Iterable<ModelGrant> {
    const own = this.#byRole[role] ?? new Set();
    for (const grant of own) {
      const powerless = grant.sessions.every(({ deadline }) => deadline <= this.#awsNow());
      if (powerless && grant.endedAt !== undefined && this.#timeline.now > grant.deadline + MINT_BY_MS)
        own.delete(grant);
    }
    return own;
  }

  /** As the store has it when a writer is chosen. */
  living(role: number): readonly Living[] {
    const live = [...(this.#byRole[role] ?? [])].filter(({ endedAt }) => endedAt === undefined);
    return live.map(({ handle, facts, issued }) => ({ handle, issuedFrom: facts === null ? null : issued * 1000 }));
  }

  asEnded({ handle, facts, issued, deadline }: ModelGrant): Ended {
    const until = Math.max(this.believed(deadline), facts?.deadline ?? 0) + SKEW_MS;
    return { handle, until, issuedBy: facts === null ? null : issued * 1000 };
  }

  /** What we take for AWS's time then. */
  believed(time: number): number {
    return time + this.#scenario.clockOffsetMs + this.#scenario.clockErrorMs;
  }

  /** Cut with its whole role: it ends, and whoever had it asks for another one. */
  cutOff(grant: ModelGrant, at: number): void {
    for (const session of grant.sessions) session.lost = true;
    this.#timeline.after(at - this.#timeline.now, () => {
      this.#end(grant);
      this.#open();
    });
  }

  #awsNow(): number {
    return this.#timeline.now + this.#scenario.clockOffsetMs;
  }

  #open(): void {
    const { taskSeconds, ttlSeconds, renewed, crashed, roles } = this.#scenario;
    const id = createHash('sha256').update(`${this.#scenario.seed} ${this.all.length}`).digest('hex');
    const handle = handleOf(
      [id.slice(0, 8), id.slice(8, 12), id.slice(12, 16), id.slice(16, 20), id.slice(20, 32)].join('-'),
    );
    const role = createHash('sha256').update(handle).digest().readUInt32BE(0) % roles;
    const deadline = this.#timeline.now + ttlSeconds * 1000;
    const grant: ModelGrant = {
      ...{ handle, role, deadline, sessions: [], facts: null },
      issued: Math.floor(this.believed(this.#timeline.now) / 1000),
      ...{ endedAt: undefined, containedAt: undefined },
    };
    this.all.push(grant);
    this.#byRole[role]?.add(grant);
    const crash = this.#chance.happens(crashed);
    this.#assume(grant, deadline, { crash, renewal: false });
    const renews = this.#chance.happens(renewed);
    const task = 1000 + this.#chance.exponential(taskSeconds * (renews ? 5 : 1)) * 1000;
    if (crash) this.#timeline.after(MINT_BY_MS, () => this.#end(grant));
    else this.#timeline.after(task, () => this.#end(grant));
    this.#timeline.after(ttlSeconds * 1000, () => this.#endAtDeadline(grant));
    if (renews) this.#timeline.after(ttlSeconds * 700, () => this.#renew(grant));
  }

  #end(grant: ModelGrant): void {
    if (grant.endedAt !== undefined) return;
    grant.endedAt = this.#timeline.now;
    this.onEnd(grant);
  }

  #endAtDeadline(grant: ModelGrant): void {
    if (grant.deadline <= this.#timeline.now) this.#end(grant);
    else this.#timeline.after(grant.deadline - this.#timeline.now, () => this.#endAtDeadline(grant));
  }

  #renew(grant: ModelGrant): void {
    if (grant.endedAt !== undefined) return;
    const crash = this.#chance.happens(this.#scenario.crashed);
    this.#assume(grant, this.#timeline.now + this.#scenario.ttlSeconds * 1000, { crash, renewal: true });
    this.#timeline.after(this.#scenario.ttlSeconds * 700, () => this.#renew(grant));
  }

  /** @param crash It is made, and nobody hears of it. */
  #assume(grant: ModelGrant, until: number, { crash, renewal }: { crash: boolean; renewal: boolean }): void {
    const slow = this.#chance.happens(0.01);
    const there = this.#chance.between(3, slow ? 8000 : 150);
    const deadline = Math.floor(this.believed(until) / 1000) * 1000;
    this.#timeline.after(there, () => {
      const { handle, issued } = grant;
      const session = { handle, issued, issuedAt: this.#awsNow(), deadline, lost: false, unheld: renewal };
      grant.sessions.push(session);
      this.sessions += 1;
      this.#minted(grant);
      if (crash) return;
      this.#timeline.after(this.#chance.between(3, 150), () => {
        // The store takes no answer for what has ended: its secret is given to nobody.
        if (grant.endedAt !== undefined) return;
        const latest = Math.max(deadline, grant.facts?.deadline ?? 0);
        grant.facts = { deadline: latest };
        grant.deadline = Math.max(grant.deadline, until);
        session.unheld = false;
      });
    });
  }
}
