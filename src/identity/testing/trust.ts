import type { OidcSource, TaskIssuer, Trust } from '../../catalog/types.ts';
import { MayflyError } from '../../domain/errors.ts';
import type { Caller, Identity, VerifyContext } from '../types.ts';
import { makeKey, type TestKey } from './keys.ts';

export const AUDIENCE = 'https://broker.example';
export const NOW = new Date('2026-11-22T12:00:00.000Z');
export const SECONDS = NOW.getTime() / 1000;
export const ISSUER = 'https://orchestrator.example';
export const SOURCE = 'https://idp.example';
export const OPERATORS = 'https://people.example';
export const AGENT = 'spiffe://prod.example/agent/recon';

export function taskClaims() {
  return {
    iss: ISSUER,
    aud: AUDIENCE,
    jti: 'request-1',
    iat: SECONDS,
    exp: SECONDS + 120,
    txn: 'txn-1',
    sub: 'user:ana',
    act: { sub: AGENT },
    task: {
      id: 'run-4711',
      purpose: 'reconcile.invoices',
      phase: 'execute',
      not_after: SECONDS + 1800,
      max_depth: 1,
      intent_hash: `sha-256:${'0'.repeat(64)}`,
    },
    authorization_details: [
      {
        type: 'mayfly',
        entitlements: ['ledger-db/read-invoices'],
        params: { tenant: 'acme' },
        max_ttl_seconds: 300,
      },
    ],
  };
}

export function workloadClaims() {
  return { iss: SOURCE, aud: AUDIENCE, sub: AGENT, iat: SECONDS, nbf: SECONDS, exp: SECONDS + 600 };
}

export function operatorClaims() {
  return { iss: OPERATORS, aud: AUDIENCE, sub: 'ana', iat: SECONDS, exp: SECONDS + 600, groups: ['sre', 'staff'] };
}

export interface TestTrust {
  readonly trust: Trust;
  readonly context: VerifyContext;
  readonly issuerKey: TestKey;
  readonly workloadKey: TestKey;
  readonly operatorKey: TestKey;
}

interface TrustChanges {
  readonly issuer?: Partial<TaskIssuer>;
  readonly source?: Partial<OidcSource>;
}

/** A trust with one issuer, one source and one source of operators, each with a key of its own, inline. */
export function makeTrust(changes: TrustChanges = {}): TestTrust {
  const issuerKey = makeKey('issuer-1');
  const workloadKey = makeKey('workload-1');
  const operatorKey = makeKey('operator-1');
  const trust: Trust = {
    tokenIssuers: [],
    taskIssuers: [
      {
        name: 'orchestrator',
        dev: false,
        issuer: ISSUER,
        jwks: { inline: { keys: [issuerKey.jwk] } },
        algorithms: ['ES256', 'RS256'],
        purposes: ['reconcile.invoices'],
        workloads: [`idp:${AGENT}`],
        maxTaskSeconds: 3600,
        autonomous: false,
        proofOfPossession: 'none',
        ...changes.issuer,
      },
    ],
    workloadSources: [
      {
        kind: 'oidc',
        name: 'idp',
        dev: false,
        issuer: SOURCE,
        jwks: { inline: { keys: [workloadKey.jwk] } },
        algorithms: ['ES256'],
        ...changes.source,
      },
    ],
    operators: [
      {
        name: 'people',
        dev: false,
        issuer: OPERATORS,
        jwks: { inline: { keys: [operatorKey.jwk] } },
        algorithms: ['ES256'],
        claim: 'groups',
        roles: { sre: ['viewer', 'operator'], audit: ['auditor'] },
      },
    ],
  };
  return { trust, context: { trust, audience: AUDIENCE, now: NOW }, issuerKey, workloadKey, operatorKey };
}

/** Whom a token alone makes believed. */
export async function believe(
  identity: Pick<Identity, 'authenticate'>,
  authorization: string | undefined,
  context: VerifyContext,
): Promise<Caller> {
  const presented = { authorization, proofs: [], method: 'GET', path: '/v1/tasks' };
  return (await identity.authenticate(presented, context)).caller;
}

/** The code by which something was refused; anything but a MayflyError fails the test. */
export async function refusal(work: Promise<unknown>): Promise<string> {
  try {
    await work;
  } catch (error) {
    if (error instanceof MayflyError) return error.code;
    throw error;
  }
  return 'accepted';
}
