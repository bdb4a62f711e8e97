/** Why a signal is not taken, and what signals keep from others. For `problems.ts`. */
export const signalProblems = {
  signal_source_only: [
    403,
    'Only a signal source may send signals',
    'Ask the platform team to name this workload under `signal_sources` of trust.yaml.',
  ],
  signal_kind_refused: [
    403,
    'This source may not send signals of that kind',
    'Ask the platform team which `kinds` it may send.',
  ],
  signal_id_used: [
    409,
    'A signal of this source with another content has this id',
    'Give each signal an id of its own; what is sent again must be the same.',
  ],
  signals_full: [
    409,
    'This source has said as much as it may at once',
    'Close incidents and freezes that are over, or state one for the whole environment; let words about workloads and users expire.',
  ],
  signal_too_old: [
    422,
    'The signal is too old',
    'Send it sooner: the catalog says how old signals of a source may be (`max_age_seconds`); what has expired already says nothing.',
  ],
  signal_in_future: [
    422,
    'The signal comes from the future',
    'Check the clock of the source: `occurred_at` may be 30 seconds ahead.',
  ],
  signal_subject_unknown: [
    422,
    'The signal is about something that the catalog does not know',
    'Name a workload as `<source>:<subject>`, a user by a task issuer of trust.yaml, or a target or an environment of the catalog.',
  ],
  stale_signals: [
    503,
    'A source of signals that is needed for this is silent',
    'Try again after `Retry-After`: nothing is issued, renewed or permitted until it is heard again.',
  ],
} as const satisfies Record<string, readonly [number, string, string]>;
