export interface PageRequest {
  /** At most 200. */
  readonly limit: number;
  /** Bare id of the last item seen; lists run from new to old. */
  readonly after: string | null;
}

export interface Page<T> {
  readonly items: readonly T[];
  readonly more: boolean;
}

/** Cuts the one row that was asked for beyond the limit to see whether there is more. */
export function page<T>(rows: readonly T[], limit: number): Page<T> {
  return { items: rows.slice(0, limit), more: rows.length > limit };
}
