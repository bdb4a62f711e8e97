import { z } from 'zod';
import { type ConnectContext, ProviderError, within } from '../../src/provider.ts';
import { refusal, unreadable } from './errors.ts';
import type { Nodes } from './nodes.ts';
import type { VaultTarget } from './schema.ts';

const authSchema = z.object({
  auth: z.object({
    client_token: z.string(),
    accessor: z.string(),
    lease_duration: z.number(),
    renewable: z.boolean(),
  }),
});

interface Held {
  readonly token: string;
  /** As long as it was given for at first, in milliseconds. A renewal that gives much less meets its end. */
  readonly life: number;
  readonly renewable: boolean;
  /** Of the login, and of its end, by `performance.now()`. */
  readonly since: number;
  /** Infinity for a token that has no end. */
  readonly endsAt: number;
}

/** Milliseconds between two tries to log in, while the token in hand lives on. */
const againMillis = 5000;
const loginMillis = 10_000;
/** A token that was had so lately is not the reason why something is refused. */
const restMillis = 10_000;
const longestTimer = 2 ** 31 - 1;

/** The broker's own token: had by a login, renewed in time, and had by a new login when it can be renewed no more. */
export class BrokerToken {
  readonly #config: VaultTarget;
  readonly #context: ConnectContext;
  readonly #nodes: Nodes;
  readonly #closing = new AbortController();
  #held: Held | undefined;
  #login: Promise<Held> | undefined;
  #timer: NodeJS.Timeout | undefined;
  /** What went wrong at the last try to keep it. */
  #trouble: string | undefined;

  constructor(config: VaultTarget, context: ConnectContext, nodes: Nodes) {
    this.#config = config;
    this.#context = context;
    this.#nodes = nodes;
  }

  /** Seconds that the token in hand lives if nothing is done, or null where there is none; and what was wrong last. */
  get standing(): { readonly secondsLeft: number | null; readonly trouble: string | undefined } {
    const left = this.#held === undefined ? null : Math.round((this.#held.endsAt - performance.now()) / 1000);
    return { secondsLeft: left, trouble: this.#trouble };
  }

  /** @throws ProviderError for the whole target when there is none and none is to be had. */
  async get(signal: AbortSignal): Promise<string> {
    const held = this.#held;
    if (held !== undefined && held.endsAt > performance.now()) return held.token;
    if (signal.aborted) throw givenUp();
    return (await orGivenUp(this.#anew(), signal)).token;
  }

  /**
   * It was refused: the next call logs in. Not anew and anew: a broker that lost its rights is refused with any token, and each
   * login leaves one.
   */
  forget(token: string): void {
    const held = this.#held;
    if (held?.token === token && performance.now() - held.since > restMillis) this.#held = undefined;
  }

  close(): void {
    this.#closing.abort();
    clearTimeout(this.#timer);
  }

  async #anew(): Promise<Held> {
    this.#login ??= this.#logIn()
      .catch((error: unknown) => {
        this.#fails(error);
        throw error;
      })
      .finally(() => {
        this.#login = undefined;
      });
    return await this.#login;
  }

  async #logIn(): Promise<Held> {
    const { path, body } = this.#proof();
    // Not by the signal of who happens to ask: others wait for the same login.
    const signal = within(loginMillis, this.#closing.signal);
    const received = await this.#nodes.ask({ method: 'POST', path, data: body, signal }, true);
    if (received.status !== 200) {
      const error = refusal(received, 'logging in');
      // Vault 1.13 says 500 of a secret id that it does not know.
      const refused = [400, 403].includes(received.status) || /invalid secret id/.test(error.message);
      throw new ProviderError(refused ? 'denied' : error.errorClass, error.message, { wholeTarget: true });
    }
    const held = heldBy(received.body, undefined);
    if (held === undefined) throw unreadable('logging in');
    this.#keep(held);
    return held;
  }

  /** References are resolved at each login: a rotated file counts from then on. */
  #proof(): { readonly path: string; readonly body: Readonly<Record<string, string>> } {
    const { auth } = this.#config;
    const reveal = (reference: string): string => this.#context.secret(reference).reveal().trim();
    if ('approle' in auth) {
      const { mount, role_id: roleId, secret_id: secretId } = auth.approle;
      return { path: `auth/${mount}/login`, body: { role_id: roleId, secret_id: reveal(secretId) } };
    }
    if ('kubernetes' in auth) {
      const { mount, role, token } = auth.kubernetes;
      return { path: `auth/${mount}/login`, body: { role, jwt: reveal(token) } };
    }
    const { mount, role, jwt } = auth.jwt;
    return { path: `auth/${mount}/login`, body: { role, jwt: reveal(jwt) } };
  }

  #keep(held: Held): void {
    this.#held = held;
    this.#trouble = undefined;
    this.#context.troubled?.(null);
    this.#next(Math.max(500, (held.endsAt - performance.now()) / 2));
  }

  #next(millis: number): void {
    clearTimeout(this.#timer);
    if (this.#closing.signal.aborted || !Number.isFinite(millis)) return;
    this.#timer = setTimeout(() => void this.#prolong(), Math.min(millis, longestTimer)).unref();
  }

  async #prolong(): Promise<void> {
    const held = this.#held;
    if (held === undefined) return;
    try {
      const renewed = held.renewable ? await this.#renew(held) : undefined;
      // At the end of its greatest life each renewal gives less.
      if (renewed !== undefined && renewed.endsAt - performance.now() > held.life / 2) this.#keep(renewed);
      else await this.#anew();
    } catch (error) {
      this.#fails(error);
      const seconds = Math.round((held.endsAt - performance.now()) / 1000);
      this.#context.log(
        { alert: 'login', says: this.#trouble, seconds_left: seconds },
        'the broker can not keep its token in Vault: when it ends, nothing is issued or revoked there',
      );
      this.#next(againMillis);
    }
  }

  /** Also told where there is no token any more, and each who asks is refused. */
  #fails(error: unknown): void {
    if (this.#closing.signal.aborted) return;
    const says = error instanceof ProviderError ? error.message : 'it failed';
    if (says === this.#trouble) return;
    this.#trouble = says;
    this.#context.troubled?.(says);
  }

  /** Undefined when it is refused: only a login helps. */
  async #renew(held: Held): Promise<Held | undefined> {
    const signal = within(loginMillis, this.#closing.signal);
    const path = 'auth/token/renew-self';
    const { token } = held;
    const received = await this.#nodes.ask({ method: 'POST', path, data: {}, token, signal }, true);
    if (received.status >= 500 || received.status === 429) throw refusal(received, 'renewing the token of the broker');
    return received.status === 200 ? heldBy(received.body, held) : undefined;
  }
}

function heldBy(body: unknown, before: Held | undefined): Held | undefined {
  const parsed = authSchema.safeParse(body);
  if (!parsed.success) return undefined;
  const { client_token: token, lease_duration: seconds, renewable } = parsed.data.auth;
  const life = seconds * 1000;
  const endsAt = seconds === 0 ? Number.POSITIVE_INFINITY : performance.now() + life;
  const since = before?.since ?? performance.now();
  return { token: before?.token ?? token, life: before?.life ?? life, renewable, since, endsAt };
}

/** The others who wait for the same login go on waiting. */
async function orGivenUp<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  return await new Promise<T>((resolve, reject) => {
    const stop = (): void => reject(givenUp());
    signal.addEventListener('abort', stop, { once: true });
    work.then(resolve, reject).finally(() => signal.removeEventListener('abort', stop));
  });
}

function givenUp(): ProviderError {
  return new ProviderError('retryable', 'logging in: it did not answer in time', { wholeTarget: true });
}
