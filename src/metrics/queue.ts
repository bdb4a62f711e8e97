import { Gauge, type Registry } from 'prom-client';
import { killScopes } from '../domain/kill.ts';

const states = ['due', 'waiting', 'running', 'contained', 'written_off'] as const;

interface BacklogRow {
  readonly target: string;
  readonly state: (typeof states)[number];
  readonly count: number;
  readonly overdue: number;
  readonly oldestSeconds: number;
  readonly attempts: number;
}

export interface QueueSeen {
  /** What is in hand, late or written off, a row for each target and state. */
  readonly backlog: readonly BacklogRow[];
  /** The paused targets, with whether deadlines are held too. */
  readonly paused: ReadonlyMap<string, { readonly deadlinesHeld: boolean }>;
  /** By target: grants that ended, and whose value may be known for ever. */
  readonly residual: ReadonlyMap<string, number>;
  /** Kills that stand, by scope. */
  readonly kills: ReadonlyMap<string, number>;
  /** Nothing is issued until they are confirmed. */
  readonly killsUnconfirmed: boolean;
}

/** Where the revocations stand. */
export function createQueueMetrics(registers: Registry[]): {
  /** @param seen Undefined: the store did not say, and nothing is shown. */
  show(seen: QueueSeen | undefined, targets: Iterable<string>): void;
} {
  const inHand = new Gauge({
    name: 'mayfly_revocations',
    help: 'Revocations by where they stand: due now, waiting for the next try, running, contained but not clean, written off.',
    labelNames: ['target', 'state'],
    registers,
  });
  const overdue = new Gauge({
    name: 'mayfly_revocations_overdue',
    help: 'Revocations overdue now.',
    labelNames: ['target'],
    registers,
  });
  const oldestOverdue = new Gauge({
    name: 'mayfly_revocation_oldest_overdue_seconds',
    help: 'How long the oldest overdue revocation has been due; 0 when none is overdue.',
    labelNames: ['target'],
    registers,
  });
  const mostAttempts = new Gauge({
    name: 'mayfly_revocation_most_attempts',
    help: 'Attempts made at the revocation in hand that was tried most often.',
    labelNames: ['target'],
    registers,
  });
  const residual = new Gauge({
    name: 'mayfly_grants_residual',
    help: 'Grants that ended and whose value may be known for ever: nothing could take it back (guarantee irrevocable).',
    labelNames: ['target'],
    registers,
  });
  const paused = new Gauge({
    name: 'mayfly_target_paused',
    help: 'Targets that an operator has paused; deadlines `held` when not even what reaches its deadline is ended there.',
    labelNames: ['target', 'deadlines'],
    registers,
  });

  const kills = new Gauge({
    name: 'mayfly_kills_standing',
    help: 'Kills that stand: what operators have stopped, and have not lifted.',
    labelNames: ['scope'],
    registers,
  });

  const unconfirmed = new Gauge({
    name: 'mayfly_kills_unconfirmed',
    help: '1 while nothing is issued because the store may have forgotten kills, and nobody has confirmed them.',
    registers,
  });

  return {
    // Nothing is awaited here: another scrape may run beside this one.
    show: (seen, targets) => {
      // What could not be read must not be shown as it was.
      for (const gauge of [inHand, overdue, oldestOverdue, mostAttempts, residual, paused, kills, unconfirmed])
        gauge.reset();
      if (seen === undefined) return;
      for (const target of targets) {
        for (const state of states) inHand.set({ target, state }, 0);
        for (const gauge of [overdue, oldestOverdue, mostAttempts, residual]) gauge.set({ target }, 0);
      }
      unconfirmed.set(Number(seen.killsUnconfirmed));
      for (const scope of killScopes) kills.set({ scope }, seen.kills.get(scope) ?? 0);
      for (const { target, state, count } of seen.backlog) inHand.set({ target, state }, count);
      for (const [target, count] of seen.residual) residual.set({ target }, count);
      for (const [target, { deadlinesHeld }] of seen.paused)
        paused.set({ target, deadlines: deadlinesHeld ? 'held' : 'run' }, 1);
      for (const target of new Set(seen.backlog.map((row) => row.target))) {
        const rows = seen.backlog.filter((row) => row.target === target);
        const late = rows.filter((row) => row.overdue > 0);
        const open = rows.filter(({ state }) => state !== 'written_off');
        mostAttempts.set({ target }, Math.max(0, ...open.map(({ attempts }) => attempts)));
        overdue.set(
          { target },
          late.reduce((sum, row) => sum + row.overdue, 0),
        );
        oldestOverdue.set({ target }, Math.max(0, ...late.map(({ oldestSeconds }) => oldestSeconds)));
      }
    },
  };
}
