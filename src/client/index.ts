import type { AgentKey } from './key.ts';

export { AgentKey } from './key.ts';

/**
 * A client for agents. No server code in it, and nothing but `fetch`.
 * @example
 * const key = await AgentKey.make(); // its thumbprint stands in the signed request, as cnf.jkt
 * const mayfly = new MayflyClient({ url: 'http://127.0.0.1:7420', token: () => readFile(tokenFile, 'utf8'), key });
 * const { task } = await mayfly.openTask(signedRequest);
 * const { credential } = await mayfly.issue(task.id, { entitlement: 'ledger-db/read-invoices' });
 * await mayfly.complete(task.id, { wait: 30 });
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
  readonly fetch?: typeof globalThis.fetch;
}

export interface TaskBody {
  readonly id: string;
  readonly external_id: string;
  readonly state: string;
  readonly purpose: string;
  readonly phase: string | null;
  readonly subject: string;
  readonly workload: string;
  readonly created_at: string;
  readonly not_after: string;
  readonly ended_by?: string;
  readonly grants: readonly GrantBody[];
}

export interface GrantBody {
  readonly id: string;
  readonly task_id: string;
  readonly entitlement: string;
  readonly target: string;
  readonly state: string;
  readonly deadline: string;
  readonly created_at: string;
  readonly ended_by?: string;
  readonly revocation: RevocationBody;
}

export interface RevocationBody {
  readonly id: string;
  readonly grant_id?: string;
  readonly target?: string;
  readonly state: string;
  readonly evidence?: Readonly<Record<string, unknown>>;
}

export interface EventBody {
  readonly ts: string;
  readonly type: string;
  readonly resource: string;
  readonly cause: string;
  readonly payload: Readonly<Record<string, unknown>>;
}

export type Credential = Readonly<Record<string, unknown>>;

/** What was cut from the life that was asked for, and by which bound. */
export interface Cut {
  readonly by: string;
  readonly asked_seconds: number;
  readonly granted_seconds: number;
}

export interface Ended {
  readonly task: TaskBody;
  readonly revocations: readonly RevocationBody[];
}

/** What the broker answered instead of what was asked for: RFC 9457. */
export class ProblemError extends Error {
  readonly status: number;
  readonly code: string;
  readonly problem: Readonly<Record<string, unknown>>;

  constructor(status: number, problem: Readonly<Record<string, unknown>>) {
    const text = (name: string) => (typeof problem[name] === 'string' ? problem[name] : '');
    super(
      [text('title'), text('detail'), text('next')]
        .filter((part) => part !== '')
        .map((part) => part.replace(/\.$/, ''))
        .join('. ') || `HTTP ${status}`,
    );
    this.name = 'ProblemError';
    this.status = status;
    this.code = text('code') || 'unknown';
    this.problem = problem;
  }
}

export class MayflyClient {
  readonly #options: ClientOptions;
  /** The latest that the broker gave (RFC 9449 §8.2). */
  #nonce: string | undefined;

  constructor(options: ClientOptions) {
    this.#options = options;
  }

  openTask(request: string): Promise<{ task: TaskBody }> {
    return this.#call('POST', '/v1/tasks', { request });
  }

  task(id: string): Promise<TaskBody> {
    return this.#call('GET', `/v1/tasks/${id}`);
  }

  issue(
    taskId: string,
    ask: { entitlement: string; ttl_seconds?: number; justification?: string },
  ): Promise<{ grant: GrantBody; credential: Credential; cut?: Cut }> {
    return this.#call('POST', `/v1/tasks/${taskId}/grants`, ask);
  }

  renew(grantId: string, ttlSeconds: number): Promise<{ grant: GrantBody; credential?: Credential; cut?: Cut }> {
    return this.#call('POST', `/v1/grants/${grantId}/renew`, { ttl_seconds: ttlSeconds });
  }

  grant(id: string, options: { wait?: number } = {}): Promise<GrantBody> {
    return this.#call('GET', `/v1/grants/${id}${waiting(options)}`);
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
