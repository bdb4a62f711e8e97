/** What the broker answered instead of what was asked for: RFC 9457. `is` tells which. */
export class ProblemError extends Error {
  readonly status: number;
  readonly code: string;
  readonly problem: Readonly<Record<string, unknown>>;

  constructor(status: number, problem: Readonly<Record<string, unknown>>) {
    const text = (name: string) => (typeof problem[name] === 'string' ? problem[name] : '');
    super(
      [text('title'), text('detail'), text('next')]
        .filter((part) => part !== '')
        .map((part) => part.replace(/\.$/, ''))
        .join('. ') || `HTTP ${status}`,
    );
    this.name = 'ProblemError';
    this.status = status;
    this.code = text('code') || 'unknown';
    this.problem = problem;
  }

  /** Whether it is that refusal: each has a page at the broker, `/problems/<code>`. */
  is(code: string): boolean {
    return this.code === code;
  }
}
