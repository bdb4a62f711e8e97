import { asWorkload } from '../broker/callers.ts';
import type { BrokerDeps, CallContext } from '../broker/deps.ts';
import { namePattern } from '../catalog/names.ts';
import { MayflyError } from '../domain/errors.ts';
import {
  type ApprovalId,
  type DecisionId,
  type GrantId,
  type KillId,
  parseWireId,
  type RevocationId,
  type TaskId,
} from '../domain/ids.ts';
import { workloadId } from '../domain/task.ts';
import type { Caller, WorkloadCaller } from '../identity/types.ts';
import type { UseCases } from './deps.ts';
import type { Exchange } from './exchange.ts';
import { tooManyPolls } from './limits.ts';
import { notesOf } from './notes.ts';

/** One call of the API: validated, and by a caller that is believed. What a route's handler works on. */
export class Call<Body, Query, Headers> {
  readonly exchange: Exchange;
  readonly caller: Caller;
  readonly body: Body;
  readonly query: Query;
  readonly headers: Headers;
  readonly #ends: boolean;

  /** @param ends It takes access back. */
  constructor(
    exchange: Exchange,
    caller: Caller,
    given: { readonly body: Body; readonly query: Query; readonly headers: Headers },
    ends: boolean,
  ) {
    this.exchange = exchange;
    this.caller = caller;
    this.body = given.body;
    this.query = given.query;
    this.headers = given.headers;
    this.#ends = ends;
    notesOf(exchange.response).agent = caller.kind === 'workload' ? workloadId(caller.workload) : caller.operator;
  }

  get broker(): BrokerDeps {
    return this.exchange.deps.broker;
  }

  get useCases(): UseCases {
    return this.exchange.useCases;
  }

  get context(): CallContext {
    return this.exchange.context;
  }

  /** @throws MayflyError when the caller is an operator: only an agent may do this. */
  agent(): WorkloadCaller {
    return asWorkload(this.caller);
  }

  /** The task in the path. What is no id of ours is as unknown as any other. @throws MayflyError `not_found` */
  taskId(): TaskId {
    const text = this.#pathId();
    const id = parseWireId('task', text);
    if (id === undefined) throw new MayflyError('not_found');
    notesOf(this.exchange.response).task_id = text;
    return id;
  }

  /** The grant in the path. @throws MayflyError `not_found` */
  grantId(): GrantId {
    const text = this.#pathId();
    const id = parseWireId('grt', text);
    if (id === undefined) throw new MayflyError('not_found');
    notesOf(this.exchange.response).grant_id = text;
    return id;
  }

  /** The revocation in the path. @throws MayflyError `not_found` */
  revocationId(): RevocationId {
    const id = parseWireId('rev', this.#pathId());
    if (id === undefined) throw new MayflyError('not_found');
    return id;
  }

  /** The decision in the path. @throws MayflyError `not_found` */
  decisionId(): DecisionId {
    const id = parseWireId('dec', this.#pathId());
    if (id === undefined) throw new MayflyError('not_found');
    return id;
  }

  /** The kill in the path. @throws MayflyError `not_found` */
  killId(): KillId {
    const id = parseWireId('kill', this.#pathId());
    if (id === undefined) throw new MayflyError('not_found');
    return id;
  }

  /** The approval in the path. @throws MayflyError `not_found` */
  approvalId(): ApprovalId {
    const id = parseWireId('apr', this.#pathId());
    if (id === undefined) throw new MayflyError('not_found');
    return id;
  }

  /** The target in the path. What is no name is as unknown as any other. @throws MayflyError `not_found` */
  targetName(): string {
    const name = this.#pathId();
    if (!namePattern.test(name)) throw new MayflyError('not_found');
    return name;
  }

  /** The workload in the path, `<source>:<subject>`. @throws MayflyError `not_found` */
  workloadName(): string {
    const name = this.#pathId();
    if (!/^[^:]+:./.test(name)) throw new MayflyError('not_found');
    return name;
  }

  /** The entitlement in the path, `<target>/<name>`. @throws MayflyError `not_found` */
  entitlementName(): string {
    const { target, name } = this.exchange.params;
    const parts = [target, name].filter((part) => typeof part === 'string' && namePattern.test(part));
    if (parts.length < 2) throw new MayflyError('not_found');
    return parts.join('/');
  }

  /**
   * Runs a long poll: it ends early when the caller is gone or the broker stops, and lasts no longer than the caller's token. What
   * takes access back is not refused for the polls that are open: it is not waited for.
   * @param wait Seconds asked for.
   * @throws MayflyError `too_many_polls`
   */
  async poll<T>(wait: number, work: (seconds: number, context: CallContext) => Promise<T>): Promise<T> {
    const { context, inHand, limits } = this.exchange;
    const close = wait === 0 ? undefined : limits.openPoll(this.caller);
    if (close === undefined && wait > 0 && !this.#ends) throw tooManyPolls();
    const left = (this.caller.expiresAt.getTime() - Date.now()) / 1000;
    const seconds = close === undefined ? 0 : Math.max(0, Math.min(wait, left));
    const stop = new AbortController();
    const end = () => stop.abort();
    context.gone.addEventListener('abort', end);
    const forget = inHand.poll(end);
    if (context.gone.aborted) end();
    try {
      return await work(seconds, { requestId: context.requestId, gone: stop.signal });
    } finally {
      close?.();
      forget();
      context.gone.removeEventListener('abort', end);
    }
  }

  #pathId(): string {
    const { id } = this.exchange.params;
    return typeof id === 'string' ? id : '';
  }
}
