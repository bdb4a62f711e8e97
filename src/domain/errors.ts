import { type ProblemCode, problemKind } from './problems.ts';

export interface FieldError {
  /** JSON path of the place, `$.task.purpose`; for catalog files `file:line path`. */
  readonly path: string;
  readonly message: string;
}

export interface ErrorExtras {
  /** Members that the caller may read beside `detail`, e.g. `reasons`, `decision_id`. */
  readonly members?: Readonly<Record<string, unknown>>;
  readonly errors?: readonly FieldError[];
  readonly retryAfterSeconds?: number;
  /** Private: for the log, never for the caller. */
  readonly cause?: unknown;
}

/**
 * A refusal with a stable code. `detail` is public; `cause` stays in the log.
 * @example throw new MayflyError('task_ended', 'The task completed at 12:00:00Z.')
 */
export class MayflyError extends Error {
  readonly code: ProblemCode;
  readonly status: number;
  readonly detail: string | undefined;
  readonly members: Readonly<Record<string, unknown>>;
  readonly errors: readonly FieldError[];
  readonly retryAfterSeconds: number | undefined;

  constructor(code: ProblemCode, detail?: string, extras: ErrorExtras = {}) {
    super(detail ?? problemKind(code).title, extras.cause === undefined ? undefined : { cause: extras.cause });
    this.name = 'MayflyError';
    this.code = code;
    this.status = problemKind(code).status;
    this.detail = detail;
    this.members = extras.members ?? {};
    this.errors = extras.errors ?? [];
    this.retryAfterSeconds = extras.retryAfterSeconds ?? (this.status === 503 ? 2 : undefined);
  }
}
