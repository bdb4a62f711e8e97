import type { X509Certificate } from 'node:crypto';
import { calculateJwkThumbprint } from 'jose';
import type { SpiffeX509Source } from '../../catalog/types.ts';
import { createIdentity } from '../index.ts';
import type { Believed } from '../types.ts';
import { makeAuthority, type TestCertificate } from './svids.ts';
import { makeTrust, NOW, refusal } from './trust.ts';

/** The authority of the trust domain prod.example. */
export const root = makeAuthority();
/** Whose tokens are believed beside. */
export const made = makeTrust();
const identity = createIdentity();

const source = (name: string, keys: readonly object[]): SpiffeX509Source => ({
  ...{ kind: 'spiffe-x509', name, dev: false, issuer: `spiffe://${name}.example`, trustDomain: `${name}.example` },
  jwks: { inline: { keys: keys.map((key) => ({ ...key })) } },
  algorithms: [],
});
const staging = source('staging', [makeAuthority().entry]);

export interface Asked {
  /** The bundle of prod.example. */
  readonly anchors?: readonly object[];
  readonly authorization?: string;
  readonly proofs?: readonly string[];
  readonly now?: Date;
}

/** Whom a call over a connection with these certificates makes believed. */
export async function believe(shown: readonly TestCertificate[], asked: Asked = {}): Promise<Believed> {
  const { anchors = [root.entry], authorization, proofs = [], now = NOW } = asked;
  const trust = { ...made.trust, workloadSources: [...made.trust.workloadSources, source('prod', anchors), staging] };
  const certificates = shown.map(({ x509 }): X509Certificate => x509);
  return await identity.authenticate(
    { authorization, proofs, method: 'GET', path: '/v1/tasks', certificates },
    { ...made.context, trust, now },
  );
}

export const ask = (shown: readonly TestCertificate[], asked?: Asked): Promise<string> =>
  refusal(believe(shown, asked));

export const jktOf = async ({ x509 }: Pick<TestCertificate, 'x509'>): Promise<string> =>
  await calculateJwkThumbprint({ ...x509.publicKey.export({ format: 'jwk' }) });
