import { writeFileSync } from 'node:fs';

export interface Row {
  readonly case: string;
  readonly value: number;
  readonly unit: string;
  readonly p50_ms?: number;
  readonly p99_ms?: number;
  /** To the floor named in `of`, measured in the same run. */
  readonly ratio?: number;
  readonly of?: string;
}

/** Prints the table and, with `--json FILE`, writes it. */
export function report(name: string, rows: readonly Row[]): void {
  const cells = rows.map((row) => [
    row.case,
    fixed(row.value),
    row.unit,
    fixed(row.p50_ms),
    fixed(row.p99_ms),
    row.ratio?.toFixed(2) ?? '',
    row.of ?? '',
  ]);
  const table = [['case', 'value', 'unit', 'p50 ms', 'p99 ms', 'ratio', 'of'], ...cells];
  const widths = table[0]?.map((_, column) => Math.max(...table.map((cell) => cell[column]?.length ?? 0))) ?? [];
  for (const cell of table)
    console.log(
      cell
        .map((text, column) =>
          column === 0 || column === 6 ? text.padEnd(widths[column] ?? 0) : text.padStart(widths[column] ?? 0),
        )
        .join('  '),
    );
  const at = process.argv.indexOf('--json');
  const file = at < 0 ? undefined : process.argv[at + 1];
  if (file !== undefined) writeFileSync(file, `${JSON.stringify({ name, rows }, null, 2)}\n`);
}

function fixed(value: number | undefined): string {
  return value === undefined ? '' : value.toFixed(value < 100 ? 2 : 0);
}

export function quantile(values: readonly number[], q: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(q * sorted.length))] ?? 0;
}

function median(values: readonly number[]): number {
  return quantile(values, 0.5);
}

export interface Measured {
  readonly perSecond: number;
  readonly millis: readonly number[];
}

/** Runs `work` `count` times, `concurrency` at once, and times each and all. */
export async function measure(
  count: number,
  concurrency: number,
  work: (index: number, lane: number) => Promise<void>,
): Promise<Measured> {
  const millis: number[] = [];
  let next = 0;
  const started = performance.now();
  await Promise.all(
    Array.from({ length: concurrency }, async (_, lane) => {
      while (next < count) {
        const index = next++;
        const before = performance.now();
        await work(index, lane);
        millis.push(performance.now() - before);
      }
    }),
  );
  return { perSecond: (count / (performance.now() - started)) * 1000, millis };
}

/** Joins the rounds of one case: the median of the rates, all the times together. */
export function joined(rounds: readonly Measured[]): { value: number; p50_ms: number; p99_ms: number } {
  const all = rounds.flatMap(({ millis }) => millis);
  return {
    value: median(rounds.map(({ perSecond }) => perSecond)),
    p50_ms: quantile(all, 0.5),
    p99_ms: quantile(all, 0.99),
  };
}
