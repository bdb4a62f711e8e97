import { readFileSync } from 'node:fs';
import { z } from 'zod';
import { ProblemError } from '../client/index.ts';
import { askDevIssuer, brokerUrl } from './dev-state.ts';
import { CliError } from './fail.ts';

const CALL_MILLIS = 30_000;

/** Calls the broker as an operator: with the token in the file named by MAYFLY_TOKEN_FILE, or in dev mode with one of the dev issuer. */
export async function callAsOperator<S extends z.ZodType>(
  method: 'GET' | 'POST' | 'DELETE',
  path: string,
  answer: S,
  body?: Readonly<Record<string, unknown>>,
): Promise<z.output<S>> {
  const url = brokerUrl();
  const response = await fetch(`${url}${path}`, {
    method,
    headers: {
      authorization: `Bearer ${await operatorToken()}`,
      ...(body === undefined ? {} : { 'content-type': 'application/json' }),
    },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    redirect: 'error',
    signal: AbortSignal.timeout(CALL_MILLIS),
  }).catch((cause: unknown) => {
    throw new CliError(`The broker at ${url} does not answer (${cause instanceof Error ? cause.name : 'failed'}).`);
  });
  const said: unknown = await response.json().catch(() => ({}));
  if (!response.ok)
    throw new ProblemError(response.status, typeof said === 'object' && said !== null ? { ...said } : {});
  const parsed = answer.safeParse(said);
  if (!parsed.success) throw new CliError(`What answers at ${url} is not a broker of this release.`);
  return parsed.data;
}

/** The token in the file named by MAYFLY_TOKEN_FILE; in dev mode an operator's. */
export async function operatorToken(): Promise<string> {
  const file = process.env['MAYFLY_TOKEN_FILE'];
  if (file !== undefined) return readFileSync(file, 'utf8').trim();
  return await askDevIssuer({
    kind: 'operator',
    subject: 'dev-operator',
    roles: ['operator', 'approver', 'admin'],
    audience: brokerUrl(),
    ttl_seconds: 300,
  });
}
