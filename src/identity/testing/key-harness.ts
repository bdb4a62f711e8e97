import type { JwksSource } from '../../catalog/types.ts';
import { createIdentity, type IdentityEvent, type IdentityService } from '../index.ts';
import { type JwksServer, startJwksServer } from './jwks-server.ts';
import { makeKey, signToken, type TestKey } from './keys.ts';
import { believe, makeTrust, refusal, type TestTrust, workloadClaims } from './trust.ts';

export const first = makeKey('first');
export const second = makeKey('second');

/** An identity whose workload source has its keys at a server of the test's own, under a clock that stands still. */
export interface KeyHarness {
  readonly server: JwksServer;
  readonly identity: IdentityService;
  readonly time: { ms: number };
  readonly events: readonly IdentityEvent[];
  /** A trust whose workload source has its keys at the server, or where else it is said. */
  trusting(jwks?: JwksSource, dev?: boolean): TestTrust;
  /** What becomes of a token signed by that key; each is another token, so that none is known already. */
  ask(trust: TestTrust, key: TestKey): Promise<string>;
  /** Why fetches failed, in order. */
  failures(): readonly string[];
  close(): Promise<void>;
}

export async function openKeys(fetchTimeoutMs = 5_000): Promise<KeyHarness> {
  const server = await startJwksServer();
  const time = { ms: 0 };
  const events: IdentityEvent[] = [];
  const identity = createIdentity({ clock: () => time.ms, log: (event) => events.push(event), fetchTimeoutMs });
  let serial = 0;
  return {
    server,
    identity,
    time,
    events,
    trusting: (jwks = { url: server.url }, dev = true) => makeTrust({ source: { jwks, dev } }),
    ask({ context }, key) {
      serial += 1;
      const token = signToken(key, { ...workloadClaims(), jti: String(serial) });
      return refusal(believe(identity, `Bearer ${token}`, context));
    },
    failures: () => events.flatMap((event) => (event.event === 'jwks_fetch_failed' ? [event.reason] : [])),
    async close() {
      identity.close();
      await server.close();
    },
  };
}

/** A promise that is settled from outside. */
export function deferred<T>(): { readonly promise: Promise<T>; resolve(value: T): void } {
  let settle: (value: T) => void = () => undefined;
  const promise = new Promise<T>((resolve) => {
    settle = resolve;
  });
  return { promise, resolve: (value) => settle(value) };
}
