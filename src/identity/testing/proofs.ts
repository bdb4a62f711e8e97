import { hash, randomUUID } from 'node:crypto';
import type { ProvenCall } from '../dpop.ts';
import { signText, type TestKey } from './keys.ts';

/** A proof before it is signed. A case changes one thing in it. */
export interface ProofDraft {
  header: Record<string, unknown>;
  claims: Record<string, unknown>;
  key: TestKey;
  /** Signed instead of `header` and `claims`, where JSON.stringify could not write it. */
  headerText?: string;
  payloadText?: string;
  /** What happens to the finished proof. */
  spell?: (proof: string) => string;
}

export type ProofChange = (draft: ProofDraft) => void;

/** A proof that holds for the call, but for the change. */
export function makeProof(key: TestKey, call: ProvenCall, change: ProofChange = () => {}): string {
  const { kid: _, alg: _alg, use: _use, ...jwk } = key.jwk;
  const draft: ProofDraft = {
    header: { typ: 'dpop+jwt', alg: key.alg, jwk },
    claims: {
      jti: randomUUID(),
      htm: call.method,
      htu: call.url,
      iat: Math.floor(call.now.getTime() / 1000),
      ...(call.token === null ? {} : { ath: hash('sha256', call.token, 'base64url') }),
    },
    key,
  };
  change(draft);
  const header = draft.headerText ?? JSON.stringify(draft.header);
  const proof = signText(draft.key, header, draft.payloadText ?? JSON.stringify(draft.claims));
  return draft.spell === undefined ? proof : draft.spell(proof);
}
