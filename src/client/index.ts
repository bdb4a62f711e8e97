import type {
  Ask,
  Credential,
  Cut,
  Ended,
  EventBody,
  GrantBody,
  MintedBody,
  Issued,
  PendingBody,
  Renewed,
  RevocationBody,
  TaskBody,
  TaskStanding,
  WhoAmI,
} from './bodies.ts';
import { type ApprovalOptions, untilDecided } from './approval.ts';
import { HeldTask } from './held-task.ts';
import type { AgentKey } from './key.ts';
import { ProblemError } from './problem.ts';

export { type ApprovalOptions, ApprovalPending } from './approval.ts';
export type * from './bodies.ts';
export { HeldGrant, HeldTask } from './held-task.ts';
export { AgentKey, type Delegation } from './key.ts';
export { ProblemError } from './problem.ts';
export { Renewal, type RenewalOptions } from './renewal.ts';

/**
 * A client for agents. No server code in it, and nothing but `fetch`.
 * @example
 * const key = await AgentKey.make(); // its thumbprint stands in the signed request, as cnf.jkt
 * const mayfly = new MayflyClient({ url: 'http://127.0.0.1:7420', token: () => readFile(tokenFile, 'utf8'), key });
 * await using task = await mayfly.hold(signedRequest); // is completed when its scope is left
 * await using held = await task.issue({ entitlement: 'ledger-db/read-invoices' }); // is renewed until then, and released
 * connect(held.credential);
 */
export interface ClientOptions {
  /** The broker's public URL. */
  readonly url: string;
  /**
   * The workload's own token; asked for at every call, so that a rotated one is used. Leave it out only where `fetch` connects with an
   * X.509-SVID, which says who calls.
   */
  readonly token?: () => string | Promise<string>;
  /** Proves each call to be this agent's own. Leave it out only where the task issuer is exempt from naming keys. */
  readonly key?: AgentKey;
  /** Whether credentials come sealed to `key`, so that no proxy on the way can read them. Default: where there is a key. */
  readonly sealed?: boolean;
  readonly fetch?: typeof globalThis.fetch;
}

export class MayflyClient {
  readonly #options: ClientOptions;
  /** The latest that the broker gave (RFC 9449 §8.2). */
  #nonce: string | undefined;

  constructor(options: ClientOptions) {
    this.#options = options;
  }

  whoAmI(): Promise<WhoAmI> {
    return this.#call('GET', '/v1/whoami');
  }

  openTask(request: string): Promise<{ task: TaskBody }> {
    return this.#call('POST', '/v1/tasks', { request });
  }

  /** Opens a task that ends with its scope. */
  async hold(request: string): Promise<HeldTask> {
    return new HeldTask(this, (await this.openTask(request)).task);
  }

  task(id: string): Promise<TaskBody> {
    return this.#call('GET', `/v1/tasks/${id}`);
  }

  /** @param delegation Signed by the task's own key, `AgentKey.delegate`, or by its issuer. */
  delegate(taskId: string, delegation: string): Promise<{ task: TaskStanding }> {
    return this.#call('POST', `/v1/tasks/${taskId}/children`, { delegation });
  }

  /** Takes a task that was delegated to this workload and key. */
  claim(taskId: string): Promise<{ task: TaskBody }> {
    return this.#call('POST', `/v1/tasks/${taskId}/claim`, {});
  }

  /** Carries what the task's issuer signed. @param options `wait`: seconds to wait until everything is contained. */
  tell(
    taskId: string,
    event: string,
    options: { wait?: number } = {},
  ): Promise<{ task: TaskStanding; revocations?: readonly RevocationBody[] }> {
    return this.#call('POST', `/v1/tasks/${taskId}/events${waiting(options)}`, { event });
  }

  /**
   * Issues one entitlement. Where policy wants it approved first, this waits for that and collects it.
   * @throws ApprovalPending when that takes longer than `approval.wait`; ProblemError `approval_over` when it was denied or lapsed.
   */
  async issue(taskId: string, ask: Ask, approval: ApprovalOptions = {}): Promise<Issued> {
    const path = `/v1/tasks/${taskId}/grants`;
    const answer = await this.#call<Handed | PendingBody>('POST', path, { ...ask, ...this.#delivery() });
    if (!('approval' in answer)) return { ...answer, credential: await this.#open(answer.credential) };
    approval.onPending?.(answer);
    await untilDecided(this, answer, approval);
    return await this.collect(answer.grant.id);
  }

  /** Mints what was approved, once. */
  async collect(grantId: string): Promise<Issued> {
    const issued = await this.#call<Handed>('POST', `/v1/grants/${grantId}/collect`, this.#delivery());
    return { ...issued, credential: await this.#open(issued.credential) };
  }

  async renew(grantId: string, ttlSeconds: number): Promise<Renewed> {
    const { credential, ...renewed } = await this.#call<{
      grant: MintedBody;
      credential?: Credential | string;
      cut?: Cut;
    }>('POST', `/v1/grants/${grantId}/renew`, { ttl_seconds: ttlSeconds, ...this.#delivery() });
    return { ...renewed, ...(credential !== undefined && { credential: await this.#open(credential) }) };
  }

  grant(id: string, options: { wait?: number } = {}): Promise<GrantBody> {
    return this.#call('GET', `/v1/grants/${id}${waiting(options)}`);
  }

  /** Ends a grant before its deadline. @param options `wait`: seconds to wait until it is contained. */
  async release(id: string, options: { wait?: number } = {}): Promise<GrantBody> {
    return (await this.#call<{ grant: GrantBody }>('DELETE', `/v1/grants/${id}${waiting(options)}`)).grant;
  }

  /** @param options `wait`: seconds to wait until everything is contained. */
  complete(taskId: string, options: { wait?: number } = {}): Promise<Ended> {
    return this.#call('POST', `/v1/tasks/${taskId}/complete${waiting(options)}`, {});
  }

  cancel(taskId: string, options: { wait?: number } = {}): Promise<Ended> {
    return this.#call('POST', `/v1/tasks/${taskId}/cancel${waiting(options)}`, {});
  }

  async timeline(taskId: string): Promise<readonly EventBody[]> {
    const { items } = await this.#call<{ items: readonly EventBody[] }>('GET', `/v1/tasks/${taskId}/timeline`);
    return items;
  }

  #delivery() {
    const { key, sealed = true } = this.#options;
    return key === undefined || !sealed ? {} : { delivery: key.delivery };
  }

  async #open(credential: Credential | string): Promise<Credential> {
    if (typeof credential !== 'string') {
      // Nothing signs the body: who took `delivery` out of it on the way has read the answer.
      if ('delivery' in this.#delivery()) throw new Error('The credential was to come sealed, and came in clear.');
      return credential;
    }
    if (this.#options.key === undefined) throw new Error('The credential is sealed, and there is no key to open it.');
    return await this.#options.key.open(credential);
  }

  async #call<T>(method: string, path: string, body?: unknown): Promise<T> {
    const first = await this.#ask(method, path, body);
    const wantsNonce = first.status === 401 && first.answer['code'] === 'use_dpop_nonce' && this.#nonce !== undefined;
    const { ok, status, answer } = wantsNonce ? await this.#ask(method, path, body) : first;
    if (!ok) throw new ProblemError(status, answer);
    return answer as T;
  }

  async #ask(method: string, path: string, body: unknown): Promise<Asked> {
    const send = this.#options.fetch ?? globalThis.fetch;
    const token = (await this.#options.token?.())?.trim();
    const url = `${this.#options.url}${path}`;
    const proof = await this.#options.key?.prove(method, url, token, this.#nonce);
    const response = await send(url, {
      method,
      headers: {
        ...(token === undefined
          ? {}
          : { authorization: `${proof !== undefined && isBound(token) ? 'DPoP' : 'Bearer'} ${token}` }),
        ...(proof === undefined ? {} : { dpop: proof }),
        ...(body === undefined ? {} : { 'content-type': 'application/json' }),
      },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      redirect: 'error',
    });
    this.#nonce = response.headers.get('dpop-nonce') ?? this.#nonce;
    const answer: unknown = await response.json().catch(() => ({}));
    const { ok, status } = response;
    return { ok, status, answer: typeof answer === 'object' && answer !== null ? { ...answer } : {} };
  }
}

/** A credential as it comes: sealed, where there is a key. */
interface Handed {
  readonly grant: MintedBody;
  readonly credential: Credential | string;
  readonly cut?: Cut;
}

interface Asked {
  readonly ok: boolean;
  readonly status: number;
  readonly answer: Readonly<Record<string, unknown>>;
}

function waiting(options: { wait?: number }): string {
  return options.wait === undefined ? '' : `?wait=${options.wait}`;
}

/** RFC 9449 §7: a token that itself names a key comes by a scheme of its own. One that names a certificate does not (RFC 8705 §3). */
function isBound(token: string): boolean {
  const [, payload = ''] = token.split('.');
  try {
    const claims: unknown = JSON.parse(atob(payload.replace(/-/g, '+').replace(/_/g, '/')));
    return typeof claims === 'object' && claims !== null && 'cnf' in claims && 'jkt' in Object(claims.cnf);
  } catch {
    return false;
  }
}
