import { type FenceForm, read } from '../../../providers/aws-sts/document.ts';
import { Grants, type ModelGrant } from './grants.ts';
import { denies, type JudgedSession, mayStill } from './judge.ts';
import { ModelRole } from './role.ts';
import { Chance, Timeline } from './timeline.ts';
import { ModelWriters, type WriterRules } from './writer.ts';

export interface Scenario {
  readonly seed: number;
  /** Of model time. */
  readonly seconds: number;
  readonly grantsPerSecond: number;
  /** The role and its clones. */
  readonly roles: number;
  /** Until a task ends, on the average. */
  readonly taskSeconds: number;
  readonly ttlSeconds: number;
  /** A write decides after some time up to that. */
  readonly propagationSeconds: number;
  /** AWS's clock ahead of ours, as it is and as we believe it is. */
  readonly clockOffsetMs: number;
  readonly clockErrorMs: number;
  /** Of all grants. */
  readonly renewed: number;
  readonly crashed: number;
  /** Replicas: each writes what it happens to claim, under its own name. */
  readonly brokers: number;
  /** One of them starts anew, about every so many seconds. */
  readonly restartSeconds: number;
  /** Of all writes: nobody hears of them, and they arrive minutes later, or never. */
  readonly heldUp: number;
  /** Of all deletions: done up to ten minutes after it was seen that nobody needs what is deleted. */
  readonly lateDeletions: number;
  /** So many denials, and so many of the others, are put to the evaluator which is not ours, too. */
  readonly samples: number;
  readonly rules: WriterRules;
}

export interface Result {
  readonly grants: number;
  readonly sessions: number;
  readonly ended: number;
  /** Decisions judged, and those that both evaluators judged. */
  readonly judged: number;
  readonly sampled: number;
  readonly writes: number;
  /** Refused by the quota, or not even tried. */
  readonly refusedWrites: number;
  readonly noRoom: number;
  /** Characters of all policies of one role at most, its own among them. */
  readonly largest: number;
  readonly forms: Readonly<Partial<Record<FenceForm, number>>>;
  /** From the end of a grant until a write that denies it was accepted, and until that decided. Seconds, sorted. */
  readonly written: readonly number[];
  readonly contained: readonly number[];
  /** Sessions of live ones that a role-wide fence denied. */
  readonly lost: number;
  /** Sessions of ended ones that nobody was given, and that no row tells of: crashes of renewals. They die at their deadline. */
  readonly unheld: number;
  /** What must never be. */
  readonly deniedWrongly: Faults;
  readonly letThrough: Faults;
  /** The evaluators do not agree. */
  readonly disputed: readonly string[];
}

interface Judged {
  readonly fences: readonly string[];
  readonly session: JudgedSession;
  /** By AWS's clock. */
  readonly now: number;
  readonly denied: boolean;
}

/** So many of all that were offered, each as likely as any other. */
class Sample<T> {
  readonly kept: T[] = [];
  #offered = 0;

  offer(chance: Chance, most: number, make: () => T): void {
    this.#offered += 1;
    if (this.kept.length < most) this.kept.push(make());
    else if (chance.happens(most / this.#offered)) this.kept[Math.floor(chance.between(0, most))] = make();
  }
}

/** How many, and the first of them. */
export class Faults {
  count = 0;
  readonly first: string[] = [];

  add(say: () => string): void {
    this.count += 1;
    if (this.first.length < 5) this.first.push(say());
  }
}

/** What a role itself allows takes of its quota. */
const OWN_CHARACTERS = 400;

/** An hour, or less, of agents' lives on some roles of one account, and the fence over them. */
export async function simulate(scenario: Scenario): Promise<Result> {
  const timeline = new Timeline();
  const chance = new Chance(scenario.seed);
  const counts = { judged: 0, lost: 0 };
  const deniedWrongly = new Faults();
  const letThrough = new Faults();
  const contained: number[] = [];
  const unheld = new Set<JudgedSession>();
  const samples = { denied: new Sample<Judged>(), other: new Sample<Judged>() };
  const awsNow = () => timeline.now + scenario.clockOffsetMs;

  const judge = (grant: ModelGrant, fences: readonly string[]) => {
    for (const session of grant.sessions) {
      if (awsNow() >= session.deadline) continue;
      counts.judged += 1;
      const denied = fences.some((fence) => denies(fence, session));
      const sample = denied ? samples.denied : samples.other;
      sample.offer(chance, scenario.samples, () => ({ fences, session: { ...session }, now: awsNow(), denied }));
      if (grant.endedAt === undefined && denied && !session.lost) {
        if (fences.every((fence) => !denies(fence, session) || read(fence)?.form === 'role-wide')) {
          session.lost = true;
          counts.lost += 1;
          continue;
        }
        deniedWrongly.add(
          () => `${session.handle} lives, and is denied at ${timeline.now} (issued ${session.issuedAt})`,
        );
      }
      if (grant.containedAt !== undefined && timeline.now >= grant.containedAt && !denied) {
        if (session.unheld) {
          unheld.add(session);
          continue;
        }
        letThrough.add(
          () => `${session.handle} is contained since ${grant.containedAt}, and not denied at ${timeline.now}`,
        );
      }
    }
  };

  const grants = new Grants(timeline, chance, scenario, (grant) => judge(grant, roles[grant.role]?.deciding() ?? []));
  const roles = Array.from({ length: scenario.roles }, (_, index): ModelRole => {
    const delay = () =>
      1000 *
      (chance.happens(0.9)
        ? chance.between(0, Math.min(5, scenario.propagationSeconds))
        : chance.between(0, scenario.propagationSeconds));
    return new ModelRole(timeline, OWN_CHARACTERS, delay, () => {
      const fences = roles[index]?.deciding() ?? [];
      for (const grant of grants.known(index)) judge(grant, fences);
    });
  });
  const writers = new ModelWriters(timeline, chance, scenario, roles, grants);
  writers.start();
  grants.start();
  timeline.run(scenario.seconds * 1000);
  for (const grant of grants.all) {
    if (grant.endedAt !== undefined && grant.containedAt !== undefined)
      contained.push((grant.containedAt - grant.endedAt) / 1000);
  }

  const disputed: string[] = [];
  const sampled = [...samples.denied.kept, ...samples.other.kept];
  for (const { fences, session, now, denied } of sampled) {
    const may = await mayStill(fences, session, now);
    if (may === denied) disputed.push(`${session.handle} at ${now}: ${fences.join(' ')}`);
  }
  const sum = (of: (role: ModelRole) => number) => roles.reduce((total, role) => total + of(role), 0);
  return {
    grants: grants.all.length,
    sessions: grants.sessions,
    ended: grants.all.filter(({ endedAt }) => endedAt !== undefined).length,
    judged: counts.judged,
    sampled: sampled.length,
    writes: sum((role) => role.writes),
    noRoom: writers.noRoom,
    refusedWrites: sum((role) => role.refused),
    largest: Math.max(...roles.map(({ largest }) => largest)),
    forms: writers.forms,
    written: writers.written.toSorted((a, b) => a - b),
    contained: contained.toSorted((a, b) => a - b),
    lost: writers.lost + counts.lost,
    unheld: unheld.size,
    deniedWrongly,
    letThrough,
    disputed,
  };
}
