import type { IncomingMessage } from 'node:http';
import { z } from 'zod';
import { type FieldError, MayflyError } from '../domain/errors.ts';

/** More than anyone reads; a body can be wrong in thousands of places. */
const MAX_ERRORS = 20;
const MAX_NAME = 64;

/** Members whose values are `impossible_value` when they do not fit, whatever they are (DESIGN §4, Status). */
const impossible = new Set<PropertyKey>(['ttl_seconds']);

/** @throws MayflyError `invalid_request`, or `impossible_value` when nothing is wrong but values that can not be. */
export function parseBody<S extends z.ZodType>(schema: S, body: unknown): z.output<S> {
  const parsed = schema.safeParse(body);
  if (parsed.success) return parsed.data;
  const { issues } = parsed.error;
  const errors = issues.flatMap((issue) => fieldErrors('$', issue)).slice(0, MAX_ERRORS);
  throw new MayflyError(
    issues.every((issue) => isImpossible(issue, body)) ? 'impossible_value' : 'invalid_request',
    undefined,
    { errors },
  );
}

/** The query of a request's address. Unknown names and repeated ones are refused. @throws MayflyError `invalid_request` */
export function parseQuery<S extends z.ZodType>(schema: S, request: IncomingMessage): z.output<S> {
  const url = request.url ?? '';
  const start = url.indexOf('?');
  const given = new Map<string, string>();
  if (start >= 0) {
    for (const [name, value] of new URLSearchParams(url.slice(start))) {
      if (given.has(name)) throw invalid([{ path: `?${short(name)}`, message: 'comes twice' }]);
      given.set(name, value);
    }
  }
  const parsed = schema.safeParse(Object.fromEntries(given));
  if (!parsed.success) throw invalid(parsed.error.issues.flatMap((issue) => fieldErrors('?', issue)));
  return parsed.data;
}

/** Headers by the names in the schema's shape. @throws MayflyError `invalid_request` */
export function parseHeaders<S extends z.ZodObject>(schema: S, request: IncomingMessage): z.output<S> {
  const given = Object.fromEntries(
    Object.keys(schema.shape).flatMap((name) => {
      const value = oneHeader(request, name);
      return value === undefined ? [] : [[name, value]];
    }),
  );
  const parsed = schema.safeParse(given);
  if (!parsed.success) throw invalid(parsed.error.issues.flatMap((issue) => fieldErrors('', issue)));
  return parsed.data;
}

/**
 * A header that counts for something. Node keeps the first of two and drops the other silently; a proxy before us may have judged
 * the other one.
 * @throws MayflyError `invalid_request` when it came twice.
 */
export function oneHeader(request: IncomingMessage, name: string): string | undefined {
  const values = request.headersDistinct[name.toLowerCase()];
  if (values !== undefined && values.length > 1) throw invalid([{ path: name, message: 'comes twice' }]);
  return values?.[0];
}

function invalid(errors: readonly FieldError[]): MayflyError {
  return new MayflyError('invalid_request', undefined, { errors: errors.slice(0, MAX_ERRORS) });
}

function fieldErrors(root: '$' | '?' | '', issue: z.core.$ZodIssue): FieldError[] {
  const place = pathText(root, issue.path);
  if (issue.code !== 'unrecognized_keys') return [{ path: place, message: issue.message }];
  return issue.keys
    .slice(0, MAX_ERRORS)
    .map((key) => ({ path: pathText(root, [...issue.path, key]), message: 'is not known here' }));
}

/** `$.issue[3]` in a body, `?wait` in a query, the bare name of a header. */
function pathText(root: '$' | '?' | '', path: readonly PropertyKey[]): string {
  if (root !== '$') return `${root}${short(String(path[0] ?? ''))}`;
  const parts = path.map((part) => {
    if (typeof part === 'number') return `[${part}]`;
    const name = short(String(part));
    return /^\w+$/.test(name) ? `.${name}` : `[${JSON.stringify(name)}]`;
  });
  return `$${parts.join('')}`;
}

function short(name: string): string {
  return name.length <= MAX_NAME ? name : `${name.slice(0, MAX_NAME)}…`;
}

/** A missing member is a fault of the body's shape, not of a value. */
function isImpossible(issue: z.core.$ZodIssue, body: unknown): boolean {
  const last = issue.path.at(-1);
  if (last === undefined || issue.path.length !== 1 || !impossible.has(last)) return false;
  return typeof body === 'object' && body !== null && Object.hasOwn(body, last);
}
