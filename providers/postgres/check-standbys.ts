import type { CheckStep } from '../../src/provider.ts';
import { says } from './probe.ts';
import {
  assertStandby,
  hasReached,
  isPrimary,
  lagging,
  type PrimaryPosition,
  primaryPosition,
  type Standby,
  type StandbyState,
} from './standby.ts';
import { nameOf, readReplicas, type Replica, unlisted } from './standby-match.ts';
import type { Target } from './target.ts';

interface Reached {
  readonly step: CheckStep;
  readonly state: StandbyState | null;
  readonly replicas: readonly Replica[];
}

/** That every listed standby is one and can be swept, and that no other streams, from the primary or from one of them. */
export async function checkStandbys(target: Target, signal: AbortSignal): Promise<readonly CheckStep[]> {
  const primary = await primaryPosition(target.revoking, signal);
  const direct = await target.revoking.useTwice(signal, ({ connection }) => readReplicas(connection, signal));
  const reached = await Promise.all(target.standbys.map((standby) => reach(standby, primary, signal)));
  const replicas = [...direct, ...reached.flatMap((each) => each.replicas)];
  const strangers = await unlisted(target.config.standbys ?? [], replicas);
  const steps: CheckStep[] = [
    {
      step: 'standbys',
      ok: strangers.length === 0,
      says:
        strangers.length > 0
          ? `standbys that are not listed, whose sessions would live on: ${strangers.map(nameOf).join(', ')} ` +
            '(standbys: in the target; a name there must be the application_name)'
          : replicas.length === 0
            ? 'no standby is connected'
            : `connected and listed: ${replicas.map(nameOf).join(', ')}`,
    },
  ];
  const met = new Map<string, Standby>();
  reached.forEach(({ step, state }, index) => {
    const standby = target.standbys[index];
    const twin = state === null ? undefined : met.get(state.started);
    if (twin !== undefined && standby !== undefined) {
      // A name that leads to one of several servers: the sweeps would miss the others.
      steps.push({ ...step, ok: false, says: `${standby.label} leads to the same server as ${twin.label}` });
      return;
    }
    if (state !== null && standby !== undefined) {
      met.set(state.started, standby);
    }
    steps.push(step);
  });
  return steps;
}

async function reach(standby: Standby, primary: PrimaryPosition, signal: AbortSignal): Promise<Reached> {
  try {
    const state = await standby.state(primary, signal);
    assertStandby(state, primary);
    if (isPrimary(state, primary)) {
      const step = { step: 'standby', ok: true, says: `${standby.label}: it is the primary now` };
      return { step, state: null, replicas: [] };
    }
    const replicas = await standby.pool.useTwice(signal, ({ connection }) => readReplicas(connection, signal));
    const strayed = !hasReached(state, primary) && state.reached;
    const faults = [
      ...(strayed ? [lagging(state, primary).message] : []),
      ...(state.paused ? ['replay is paused there, and so would be every end'] : []),
      ...(state.applies_late ? ['it applies changes late (recovery_min_apply_delay), and so every end'] : []),
    ];
    const lag = `in recovery, same cluster, ${state.reached ? 0 : (state.behind_bytes ?? 'an unknown number of')} bytes behind`;
    const warning = state.waits_for_queries
      ? '; warning: a query there may hold up replay for ever (max_standby_streaming_delay = -1)'
      : '';
    const text = faults.length > 0 ? faults.join('; ') : `${lag}${warning}`;
    return { step: { step: 'standby', ok: faults.length === 0, says: `${standby.label}: ${text}` }, state, replicas };
  } catch (error) {
    return { step: { step: 'standby', ok: false, says: says(standby.named(error)) }, state: null, replicas: [] };
  }
}
