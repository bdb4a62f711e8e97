import type { ServerResponse } from 'node:http';
import type { ProblemCode } from '../domain/problems.ts';

/** What is known of one request, for its log line and its metrics. Ids and codes; never a header, a body or an address with a query. */
export interface Notes {
  readonly request_id: string;
  /** `performance.now()` at its arrival. */
  readonly began: number;
  /** Address of the caller. */
  client: string;
  /** Pattern of the route. */
  route: string;
  agent?: string;
  task_id?: string;
  grant_id?: string;
  code?: ProblemCode;
  /** What went wrong, when it was our side's fault or has a private cause. */
  error?: unknown;
}

const notes = new WeakMap<ServerResponse, Notes>();

export function openNotes(response: ServerResponse, requestId: string): Notes {
  const opened: Notes = { request_id: requestId, began: performance.now(), client: '', route: 'unmatched' };
  notes.set(response, opened);
  return opened;
}

export function notesOf(response: ServerResponse): Notes {
  return notes.get(response) ?? openNotes(response, 'none');
}
