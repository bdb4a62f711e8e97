import { isBad, isBroad } from '../domain/signal.ts';
import { step } from '../domain/step.ts';
import { findActiveRevisionNumber } from '../store/catalog-revisions.ts';
import { forgetSignals as forget, findSignals, hasLapsed, lapse } from '../store/signals.ts';
import type { BrokerDeps } from './deps.ts';
import { movedPayload, moveBySignals, signalEvent, signalPayload } from './move-by-signal.ts';

/** Held together under the kill epoch. */
const LAPSED = 100;
const FORGOTTEN = 1_000;

const context = { requestId: 'drift-sweep' };

/**
 * What has expired says nothing any more: what hung on it is decided again, and whoever was suspended by it goes on. Decisions know by
 * themselves; this is for what lives.
 */
export async function lapseSignals(deps: Pick<BrokerDeps, 'db' | 'catalog' | 'alarms'>): Promise<void> {
  const active = deps.catalog.current();
  for (let more = await hasLapsed(deps.db); more; ) {
    const targets = new Set<string>();
    more = await deps.db.transaction({ kill: 'exclusive', catalog: 'shared' }, async (tx) => {
      // Whom they are about is said by the catalog in force: whoever has it looks.
      if ((await findActiveRevisionNumber(tx)) !== active.number) return false;
      const lapsed = await lapse(tx, LAPSED);
      const said = new Map(
        (
          await findSignals(
            tx,
            lapsed.map(({ signalId }) => signalId),
          )
        ).map((one) => [one.id, one]),
      );
      const signals = lapsed.map(({ signalId, source, kind, subject, name, value: before }) => {
        const signal = { source, kind, subject, name, id: signalId, key: said.get(signalId)?.key ?? '', value: null };
        return { ...signal, suspends: false, moves: !isBroad(kind) || isBad({ kind, value: before }) };
      });
      const moving = signals.filter(({ moves }) => moves);
      const moved = await moveBySignals(deps, tx, active, moving, context);
      for (const each of moved.values()) for (const target of each.targets) targets.add(target);
      for (const signal of signals) {
        const payload = { ...signalPayload(signal), ...movedPayload(moved.get(signal.id)) };
        tx.record(signalEvent('signal.lapsed', 'none', active, signal.subject, context, payload));
      }
      step('lapse-signals.before');
      return lapsed.length === LAPSED;
    });
    step('lapse-signals.after');
    for (const target of targets) deps.alarms.now(target);
  }
}

/** Forgets what is over for days. */
export async function forgetSignals(deps: Pick<BrokerDeps, 'db'>): Promise<void> {
  while (await forget(deps.db, FORGOTTEN));
}
