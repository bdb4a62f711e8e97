import type { SignalKind } from './signal.ts';

/** What says something of workloads, users and systems from outside. */
export interface SignalSource {
  readonly name: string;
  /** Workload ids that are it. */
  readonly workloads: readonly string[];
  /** Thumbprints: each of its calls is proven by one of these keys. Null: its token is enough. */
  readonly keys: readonly string[] | null;
  /** What it may tell of. */
  readonly kinds: readonly SignalKind[];
  /** Older signals are refused; and with `heartbeat` its silence for longer is staleness. */
  readonly maxAgeSeconds: number;
  readonly heartbeat: boolean;
  /** While it is stale nothing is issued, renewed or permitted. */
  readonly required: boolean;
  /** Kinds of which its bad word suspends tasks by itself, and its good word resumes them. */
  readonly suspends: readonly SignalKind[];
}
