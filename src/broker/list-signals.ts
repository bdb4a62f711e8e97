import { isTargetInScope, requireRole, type ScopedTargets } from './operator-scope.ts';
import type { SignalSource } from '../domain/signal-source.ts';
import type { Catalog } from '../catalog/types.ts';
import type { SignalId } from '../domain/ids.ts';
import type { Caller } from '../identity/types.ts';
import { isStale } from '../policy/signals.ts';
import type { Queryable } from '../store/database.ts';
import { type KeptSignal, listSignals as findSignals, readHeard } from '../store/signal-list.ts';
import type { SuspendedBy } from '../store/suspensions.ts';
import type { BrokerDeps } from './deps.ts';
import { leftSuspended } from './left-suspended.ts';

/** A source of the catalog in force, and whether it is heard. */
export interface SourceState {
  readonly name: string;
  readonly kinds: SignalSource['kinds'];
  readonly required: boolean;
  readonly maxAgeSeconds: number;
  /** By its own time; null: never. */
  readonly heardAt: Date | null;
  /** Infinite: never heard. */
  readonly ageSeconds: number;
  readonly stale: boolean;
}

export interface SignalsPage {
  readonly items: readonly KeptSignal[];
  readonly next: SignalId | undefined;
  readonly sources: readonly SourceState[];
  /** Suspended by sources that the catalog in force does not hear on that any more: until an operator resumes them. */
  readonly leftSuspended: readonly SuspendedBy[];
}

/**
 * A page of the signals that the caller may see, the latest first: what is about workloads and users only where the role holds everywhere.
 * @param standing Only those that count now, or only the others.
 */
export async function listSignals(
  deps: BrokerDeps,
  caller: Caller,
  standing: boolean | undefined,
  before: SignalId | null,
  limit: number,
): Promise<SignalsPage> {
  const { scope } = requireRole(deps, caller, 'viewer');
  const within = scope === null ? null : subjectsWithin(scope, deps.catalog.current().catalog);
  const found = await findSignals(deps.db, standing, within, before, limit + 1);
  const items = found.slice(0, limit);
  return {
    items,
    next: found.length > limit ? items.at(-1)?.id : undefined,
    sources: await readSources(deps.db, deps.catalog),
    leftSuspended: await leftSuspended(deps.db, deps.catalog.current().catalog),
  };
}

/** All sources of the catalog in force, as they are heard now. */
export async function readSources(
  db: Queryable,
  catalog: Pick<BrokerDeps['catalog'], 'ready' | 'current'>,
): Promise<readonly SourceState[]> {
  const sources = catalog.ready ? catalog.current().catalog.signalSources : [];
  if (sources.length === 0) return [];
  const { heard, now } = await readHeard(db);
  return sources.map((source) => {
    const at = Object.hasOwn(heard, source.name) ? heard[source.name] : undefined;
    return {
      ...{ name: source.name, kinds: source.kinds, required: source.required, maxAgeSeconds: source.maxAgeSeconds },
      heardAt: at === undefined ? null : new Date(at),
      ageSeconds: at === undefined ? Number.POSITIVE_INFINITY : Math.max(0, (now.getTime() - at) / 1000),
      stale: isStale(source, heard, now),
    };
  });
}

function subjectsWithin(scope: NonNullable<ScopedTargets>, { targets }: Pick<Catalog, 'targets'>): readonly string[] {
  const own = [...targets.values()].filter(({ name }) => isTargetInScope(scope, name));
  const subjects = own.flatMap(({ name, environment }) => [`target:${name}`, `environment:${environment}`]);
  return own.length === 0 ? [] : ['all', ...new Set(subjects)];
}
