import { createPrivateKey, type KeyObject, sign } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { decodeJwt, decodeProtectedHeader } from 'jose';

/** A token taken apart, to be changed and signed again by the very key that its issuer publishes. */
export interface Draft {
  header: Record<string, unknown>;
  claims: Record<string, unknown>;
  /** Signed instead of the claims, for what an object can not hold. */
  payload?: string;
  /** What happens to the finished token. */
  spell?: (token: string) => string;
}

export type Change = (draft: Draft) => void;

/** @param devDir where the dev issuer keeps its keys. @param issuer whose key signs. */
export function forge(
  devDir: string,
  issuer: 'orchestrator' | 'workloads' | 'operators',
  token: string,
  change: Change,
): string {
  const draft: Draft = { header: { ...decodeProtectedHeader(token) }, claims: { ...decodeJwt(token) } };
  change(draft);
  const key = createPrivateKey({
    key: JSON.parse(readFileSync(join(devDir, 'issuer', `${issuer}.jwk`), 'utf8')),
    format: 'jwk',
  });
  const signed = signAs(key, draft);
  return draft.spell === undefined ? signed : draft.spell(signed);
}

function signAs(key: KeyObject, { header, claims, payload }: Draft): string {
  const part = (text: string) => Buffer.from(text).toString('base64url');
  const input = `${part(JSON.stringify(header))}.${part(payload ?? JSON.stringify(claims))}`;
  const signature = sign('sha256', Buffer.from(input), { key, dsaEncoding: 'ieee-p1363' });
  return `${input}.${signature.toString('base64url')}`;
}
