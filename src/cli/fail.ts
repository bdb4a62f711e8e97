import { ProblemError } from '../client/index.ts';
import { ConfigError } from '../config.ts';
import { MayflyError } from '../domain/errors.ts';
import { problemKind } from '../domain/problems.ts';
import { portTaken } from './dev/dev-error.ts';

/** A fault that the person at the terminal can mend, in a sentence. */
export class CliError extends Error {
  readonly exitCode: number;

  constructor(message: string, exitCode = 1) {
    super(message);
    this.name = 'CliError';
    this.exitCode = exitCode;
  }
}

/** What a person reads of an error: a sentence and the places, never a stack. */
export function explain(error: unknown): string {
  if (error instanceof MayflyError) {
    const lines = error.errors.map(({ path, message }) => `  ${path}: ${message}`);
    const { title, next } = problemKind(error.code);
    return [`${title}. ${error.detail ?? ''}`.trim(), ...lines, ...(lines.length === 0 ? [next] : [])].join('\n');
  }
  if (error instanceof ProblemError) return `The broker refused (${error.status} ${error.code}): ${error.message}`;
  if (error instanceof ConfigError || error instanceof CliError) return error.message;
  if (error instanceof AggregateError && error.errors.length > 0) return explain(error.errors[0]);
  if (error instanceof Error && 'code' in error && error.code === 'EADDRINUSE') return sayTaken(error);
  return error instanceof Error ? error.message : String(error);
}

/** Only the broker's own listener says so itself: what dev mode starts beside it has its own words. */
function sayTaken(error: Error): string {
  const host = 'address' in error && typeof error.address === 'string' ? error.address : undefined;
  const port = 'port' in error && typeof error.port === 'number' ? error.port : undefined;
  if (host === undefined || port === undefined) return error.message;
  return portTaken('The broker', port, { host, setting: 'MAYFLY_PORT' }).message;
}
