import type { IncomingMessage, ServerResponse } from 'node:http';
import type { HttpDeps, UseCases } from './deps.ts';
import type { Operation } from './route.ts';

/** What a page is asked with. */
export interface Visit {
  readonly deps: HttpDeps;
  readonly useCases: UseCases;
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  readonly params: Readonly<Record<string, string | string[]>>;
}

/** An operation that anybody may ask for. */
export interface Page extends Operation {
  /** It costs more than a look: calls from one address are limited. */
  readonly counted?: true;
  show(visit: Visit): Promise<void> | void;
}
