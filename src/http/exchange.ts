import type { IncomingMessage, ServerResponse } from 'node:http';
import type { CallContext } from '../broker/deps.ts';
import type { GrantWithRevocation } from '../store/grants.ts';
import type { HttpDeps, UseCases } from './deps.ts';
import type { InHand } from './in-hand.ts';
import type { Limits } from './limits.ts';
import { notesOf } from './notes.ts';

/** One request and its answer. */
export interface Exchange {
  readonly deps: HttpDeps;
  readonly useCases: UseCases;
  readonly inHand: InHand;
  readonly limits: Limits;
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  /** Members of the path, not yet looked at. */
  readonly params: Readonly<Record<string, string | string[]>>;
  readonly context: CallContext;
  /** Grants whose credentials stand in the answer. */
  readonly handedOver: GrantWithRevocation[];
}

export function openExchange(
  parts: Pick<Exchange, 'deps' | 'useCases' | 'inHand' | 'limits' | 'request' | 'response' | 'params'>,
): Exchange {
  const { response } = parts;
  const gone = new AbortController();
  // `close` comes after every answer; before it was written it means that the caller left.
  response.on('close', () => {
    if (!response.writableFinished) gone.abort();
  });
  return { ...parts, context: { requestId: notesOf(response).request_id, gone: gone.signal }, handedOver: [] };
}
