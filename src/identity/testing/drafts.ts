import { signText, type TestKey } from './keys.ts';
import { taskClaims } from './trust.ts';

/** A request before it is signed. A case changes one thing in it. */
export interface Draft {
  header: Record<string, unknown>;
  claims: ReturnType<typeof taskClaims> & Record<string, unknown>;
  key: TestKey;
  /** Signed instead of `header` and `claims`, where JSON.stringify could not write it. */
  headerText?: string | Buffer;
  payloadText?: string | Buffer;
  /** What happens to the finished token. */
  spell?: (token: string) => string;
}

export function draft(key: TestKey): Draft {
  return {
    header: { alg: 'ES256', typ: 'agent-task+jwt', kid: key.kid },
    claims: taskClaims(),
    key,
  };
}

export function finish({ header, claims, key, headerText, payloadText, spell }: Draft): string {
  const token = signText(key, headerText ?? JSON.stringify(header), payloadText ?? JSON.stringify(claims));
  return spell ? spell(token) : token;
}

export type Case = readonly [name: string, change: (request: Draft) => void];

export const json = (text: string, from: string, to: string): string => {
  if (!text.includes(from)) throw new Error(`nothing to replace: ${from}`);
  return text.replace(from, to);
};
/** Rewrites the payload's text, for what an object cannot hold. */
export const payload = (request: Draft, from: string, to: string): void => {
  request.payloadText = json(JSON.stringify(request.claims), from, to);
};
/** Sets a member of `task`, also one that the type does not know. */
export const task = (request: Draft, members: Record<string, unknown>): void => {
  Object.assign(request.claims.task, members);
};
export const details = (request: Draft, members: Record<string, unknown>): void => {
  Object.assign(request.claims.authorization_details[0] ?? {}, members);
};
export const parts = (token: string, change: (header: string, body: string, signature: string) => string): string => {
  const [header = '', body = '', signature = ''] = token.split('.');
  return change(header, body, signature);
};
/** The last character with a stray bit set: the same bytes for a lenient decoder. */
export const strayBit = (part: string): string => {
  const alphabet = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_';
  return part.slice(0, -1) + alphabet.charAt(alphabet.indexOf(part.slice(-1)) + 1);
};

/** One valid request with one thing changed. */
export function changed(key: TestKey, change: (request: Draft) => void): string {
  const request = draft(key);
  change(request);
  return finish(request);
}
