import type { IncomingMessage, ServerResponse } from 'node:http';
import { type DestinationStream, type Logger, pino } from 'pino';
import { MayflyError } from '../domain/errors.ts';
import { type Notes, notesOf } from './notes.ts';

export type { Logger } from 'pino';

/** Deeper chains of causes are cut: an error can be its own cause. */
const MAX_CAUSES = 5;
const MAX_STACK = 4_000;
const MAX_MESSAGE = 1_000;

/** Asked every few seconds by machines. */
const quiet = new Set(['/healthz', '/readyz', '/metrics']);

/**
 * The log: one event a line, JSON. A `Secret` prints `[secret]` wherever it stands; of an error only message, code, stack and causes
 * are written, since drivers hang whole connections, statements and parameters on theirs.
 * @param destination Default: standard output.
 */
export function createLogger(level: string, destination?: DestinationStream): Logger {
  const options = {
    level,
    base: null,
    timestamp: pino.stdTimeFunctions.isoTime,
    formatters: { level: (label: string) => ({ level: label }) },
    serializers: { err: printableError, error: printableError },
  };
  return destination === undefined ? pino(options) : pino(options, destination);
}

interface PrintableError {
  readonly name: string;
  readonly message: string;
  readonly code?: string;
  readonly stack?: string;
  readonly cause?: PrintableError;
}

/** What may be written of an error. */
function printableError(error: unknown, depth = 0): PrintableError {
  if (!(error instanceof Error)) return { name: typeof error, message: scrub(String(error), MAX_MESSAGE) };
  const code = error instanceof MayflyError || 'code' in error ? error.code : undefined;
  const cause = error.cause !== undefined && depth < MAX_CAUSES ? printableError(error.cause, depth + 1) : undefined;
  return {
    name: error.name,
    message: scrub(error.message, MAX_MESSAGE),
    ...(typeof code === 'string' ? { code } : {}),
    ...(error.stack === undefined ? {} : { stack: scrub(error.stack, MAX_STACK) }),
    ...(cause === undefined ? {} : { cause }),
  };
}

/** Others' messages may quote what they were given: URLs with passwords, tokens, verifiers. */
function scrub(text: string, length: number): string {
  // Cut last: half a secret would not look like one any more.
  return text
    .slice(0, 16 * length)
    .replace(/(\b[a-z][a-z0-9+.-]{0,20}:\/\/[^\s:@/]{0,100}):[^\s@]{1,500}@/gi, '$1:[secret]@')
    .replace(/\beyJ[\w-]+\.[\w-]*(\.[\w-]*)?/g, '[token]')
    .replace(/\bSCRAM-SHA-256\$\S+/g, '[verifier]')
    .slice(0, length);
}

/** One line for a request, once its answer is written or its caller is gone. */
export function logRequest(log: Logger, request: IncomingMessage, response: ServerResponse): void {
  const notes = notesOf(response);
  const { began, error, ...known } = notes;
  log[levelOf(notes, response)](
    {
      method: request.method,
      ...known,
      status: statusOf(response),
      ms: Math.round((performance.now() - began) * 1000) / 1000,
      ...(error === undefined ? {} : { err: error }),
    },
    'request',
  );
}

function levelOf({ route, error }: Notes, response: ServerResponse) {
  if (response.statusCode === 500) return 'error';
  if (response.statusCode > 500 || error !== undefined) return 'warn';
  return quiet.has(route) ? 'debug' : 'info';
}

/** The status that the caller could read. */
export function statusOf(response: ServerResponse): number | 'aborted' {
  return response.writableFinished ? response.statusCode : 'aborted';
}
