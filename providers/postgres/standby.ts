import { z } from 'zod';
import { ProviderError } from '../../src/provider.ts';
import { TargetClock } from './clock.ts';
import type { BrokerConnection } from './connection.ts';
import { classify } from './errors.ts';
import { ConnectionPool } from './pool.ts';
import type { ListedStandby } from './schema.ts';

/** Of the broker, on each standby: one to end with, one to look with. */
const connections = 2;

const stateSchema = z.object({
  system_identifier: z.string(),
  in_recovery: z.boolean(),
  replayed: z.string().nullable(),
  reached: z.boolean(),
  behind_bytes: z.number().nullable(),
  timeline: z.string().nullable(),
  paused: z.boolean(),
  applies_late: z.boolean(),
  waits_for_queries: z.boolean(),
  started: z.string(),
});
/** What a standby says of itself; `reached` is about the LSN that was asked for. */
export type StandbyState = Readonly<z.infer<typeof stateSchema>>;

/** Where the primary is: which cluster, and how far its WAL went at some moment. */
export interface PrimaryPosition {
  readonly systemIdentifier: string;
  readonly lsn: string;
  /** As in the name of a WAL file. Null when that is not known. */
  readonly timeline: string | null;
  /** When its server was started, which tells it from every other. Null when that is not known. */
  readonly started: string | null;
}

/** Where the primary's WAL ends now, with all that committed before. @throws ProviderError */
export async function primaryPosition(revoking: ConnectionPool, signal: AbortSignal): Promise<PrimaryPosition> {
  return revoking.useTwice(signal, async ({ connection, status }) => {
    const doing = 'reading the position of the primary';
    const text = 'SELECT lsn, timeline, started FROM mayfly.wal()';
    const [row] = await connection.query<{ lsn: string; timeline: string; started: string }>(doing, text, [], signal);
    if (row === undefined) {
      throw new ProviderError('retryable', `${doing}: no answer`);
    }
    return { systemIdentifier: status.system_identifier, ...row };
  });
}

/** One hot standby of a target, as the catalog lists it. Opening it touches no network. */
export class Standby {
  readonly listed: ListedStandby;
  /** As people know it: `standby replica-2 (db2:5433)`. */
  readonly label: string;
  readonly pool: ConnectionPool;
  /** Of its own: asked with its state. */
  readonly clock = new TargetClock();

  constructor(listed: ListedStandby, open: (signal: AbortSignal) => Promise<BrokerConnection>) {
    const at = `${listed.host}:${listed.port}`;
    this.listed = listed;
    this.label = listed.name === undefined ? `standby ${at}` : `standby ${listed.name} (${at})`;
    this.pool = new ConnectionPool(connections, open);
  }

  /**
   * Asked anew each time: a connection survives a promotion.
   * @throws ProviderError `misconfigured` when it is no copy of this primary: then nothing may be touched there.
   */
  async state(primary: PrimaryPosition, signal: AbortSignal): Promise<StandbyState> {
    const answer = await this.pool.useTwice(signal, async ({ connection }) => {
      const sent = Date.now();
      const rows = await connection.query<{ state: unknown; now_ms: number }>(
        'reading its state',
        'SELECT mayfly.standby($1) AS state, (extract(epoch FROM clock_timestamp()) * 1000)::float8 AS now_ms',
        [primary.lsn],
        signal,
      );
      rows.forEach(({ now_ms: now }) => this.clock.learn(sent, Date.now(), now));
      return rows;
    });
    const parsed = stateSchema.safeParse(answer[0]?.state);
    if (!parsed.success) {
      throw new ProviderError('misconfigured', 'it is prepared for another version (mayfly target prepare)');
    }
    const { system_identifier: found } = parsed.data;
    if (found !== primary.systemIdentifier) {
      const says = `it is of the cluster ${found}, the primary of ${primary.systemIdentifier}: it is no standby of it`;
      throw new ProviderError('misconfigured', says);
    }
    return parsed.data;
  }

  /** The failure, with the name of this standby in it. */
  named(error: unknown): ProviderError {
    const { errorClass, message } = classify(error, 'asking it');
    return new ProviderError(errorClass, `${this.label}: ${message}`);
  }
}

/** Whether it is the primary itself, as after a failover between nodes that are all listed: that is swept as what it is. */
export function isPrimary(state: StandbyState, primary: PrimaryPosition): boolean {
  return !state.in_recovery && state.started === primary.started;
}

/** @throws ProviderError `misconfigured` when that server is a standby no more, and not the primary of the target either. */
export function assertStandby(state: StandbyState, primary: PrimaryPosition): void {
  if (!state.in_recovery && !isPrimary(state, primary)) {
    const says = 'it was promoted: it follows the primary no more, and what is ended there can still log in here';
    throw new ProviderError('misconfigured', says);
  }
}

/** Whether it has all that the primary had. A position on another timeline is one in another history. */
export function hasReached(state: StandbyState, primary: PrimaryPosition): boolean {
  return isPrimary(state, primary) || (state.reached && !strays(state, primary));
}

function strays({ timeline }: StandbyState, primary: PrimaryPosition): boolean {
  return timeline !== null && timeline !== primary.timeline;
}

/** Why it is not where it should be, for a person. */
export function lagging(state: StandbyState, primary: PrimaryPosition, heldBy: readonly string[] = []): ProviderError {
  const why = strays(state, primary)
    ? `it follows timeline ${state.timeline}, and the primary is on ${primary.timeline}: another primary?`
    : state.paused
      ? 'replay is paused there'
      : heldBy.length > 0
        ? `replay is held up by a session of ${heldBy.join(', ')}`
        : state.applies_late
          ? 'it applies changes late on purpose (recovery_min_apply_delay)'
          : `it is ${state.behind_bytes ?? 'an unknown number of'} bytes behind`;
  return new ProviderError('retryable', `it has not replayed the end yet: ${why}`);
}
