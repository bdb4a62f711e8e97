import type { Checked } from '../broker/check-target.ts';
import type { ListedTarget } from '../broker/list-targets.ts';
import type { AskedRun } from '../broker/reconcile-target.ts';
import type { Reconciliation } from '../store/reconciliations.ts';
import { timed, viewOfPause } from './queue-views.ts';
import type { AskedRunBody, CheckedBody, ReconciliationBody, TargetsPageBody } from './target-bodies.ts';

export function viewOfAskedRun(asked: AskedRun): AskedRunBody {
  const { target, askedAt, state, reconciliation } = asked;
  return {
    target,
    asked_at: askedAt.toISOString(),
    state,
    says: saysOf(asked),
    reconciliation: viewOfReconciliation(reconciliation),
  };
}

export function viewOfChecked(target: string, { ok, says, steps }: Checked): CheckedBody {
  return {
    target,
    ok,
    says,
    // What a provider answers beside these is nobody's business here.
    steps: steps.map(({ entitlement, step, ok: good, warns, says: said }) => ({
      ...{ entitlement, step, ok: good, says: said },
      ...(warns === true ? { warns } : {}),
    })),
  };
}

export function viewOfTargets(items: readonly ListedTarget[], next: string | undefined): TargetsPageBody {
  return {
    items: items.map(({ name, definition, pause, reconciliation }) => ({
      name,
      catalog:
        definition === undefined
          ? null
          : {
              provider: definition.provider,
              environment: definition.environment,
              owner: definition.owner,
              sensitivity: definition.sensitivity,
              labels: { ...definition.labels },
            },
      pause: pause === undefined ? null : viewOfPause(pause),
      ...(reconciliation === undefined ? {} : { reconciliation: viewOfReconciliation(reconciliation) }),
    })),
    next_cursor: next === undefined ? null : Buffer.from(next).toString('base64url'),
  };
}

function viewOfReconciliation(run: Reconciliation): ReconciliationBody {
  return {
    ...timed('asked_at', run.askedAt),
    ...timed('started_at', run.startedAt),
    ...timed('finished_at', run.finishedAt),
    ...(run.worker === null ? {} : { worker: run.worker }),
    next_at: run.nextAt.toISOString(),
    ...(run.result === null ? {} : { result: { ...run.result } }),
  };
}

function saysOf({ state, reconciliation: { worker, result } }: AskedRun): string {
  if (state === 'over') return result?.outcome === 'done' ? 'It was compared with the store.' : (result?.says ?? '');
  if (state === 'running') return 'A broker compares it with the store now. GET /v1/targets shows what it finds.';
  return worker === null
    ? 'The next free broker does it. GET /v1/targets shows what it finds.'
    : 'A run that began before is under way; the one asked for follows it. GET /v1/targets shows what it finds.';
}
