import { z } from 'zod';
import type { OperatorSource } from '../catalog/types.ts';
import { MayflyError } from '../domain/errors.ts';
import { within } from '../domain/within.ts';
import { MAX_COMPACT_CHARS } from './compact-jws.ts';
import { readBounded, requireSafeUrl } from './fetch-jwks.ts';
import type { KeySets } from './key-sets.ts';
import { callerRefusals } from './refusals.ts';
import { type TokenKind, verifySigned } from './signed-token.ts';
import { parseStrictJson } from './strict-json.ts';
import { fieldErrors, numericDate, printable, requireAudience } from './token-claims.ts';
import type { ReadSecret } from './token-reviews.ts';
import type { SignedIn, SignInCode } from './types.ts';
import { requireLive, rolesOf } from './workload-token.ts';

export interface SignInOptions {
  readonly fetch: typeof globalThis.fetch;
  readonly keySets: KeySets;
  /** Without it no client has a secret. */
  readonly secret: ReadSecret | undefined;
  readonly timeoutMs: number;
  readonly closing: AbortSignal;
}

const idToken: TokenKind = {
  refusals: callerRefusals,
  typeFits: (typ) => typ === undefined || typ === 'JWT',
  // No header of an ID token points to a key that counts here: OIDC Core §2.
  headerFits: (name) => !['jwk', 'jku', 'x5u', 'x5c', 'crit', 'b64', 'zip', 'enc'].includes(name),
};

const claimsSchema = z.object({
  sub: printable(255),
  exp: numericDate,
  iat: numericDate,
  nbf: numericDate.optional(),
  nonce: z.string(),
  azp: z.string().optional(),
});
const answerSchema = z.object({ id_token: z.string().max(MAX_COMPACT_CHARS) });

/**
 * Exchanges the code that an issuer gave to a browser for its ID token, and verifies that (OIDC Core §3.1.3). Neither token is kept.
 * @throws MayflyError `login_failed` (401) for whatever does not hold, `operator_only` for a person without a role here.
 */
export async function signIn(
  source: OperatorSource,
  code: SignInCode,
  now: Date,
  options: SignInOptions,
): Promise<SignedIn> {
  const { login } = source;
  if (login === undefined) throw new MayflyError('login_failed');
  const token = await exchange(source, login, code, options).catch((cause: unknown) => {
    throw new MayflyError('login_failed', 'Its issuer gave no ID token for the code.', { cause });
  });
  const claims = await verify(token, source, login.clientId, code.nonce, now, options.keySets).catch(
    (cause: unknown) => {
      if (cause instanceof MayflyError && cause.code === 'keys_unavailable') throw cause;
      const why = cause instanceof MayflyError ? ` (${cause.code})` : '';
      throw new MayflyError('login_failed', `The ID token is not accepted${why}.`, { cause });
    },
  );
  // Whoever has no role now has no session.
  rolesOf(claims, source);
  const { [source.claim]: values } = claims;
  return { subject: z.string().parse(claims['sub']), claims: { [source.claim]: values } };
}

async function verify(
  token: string,
  source: OperatorSource,
  clientId: string,
  nonce: string,
  now: Date,
  keySets: KeySets,
) {
  const { claims } = await verifySigned(token, idToken, [source], keySets);
  requireAudience(claims, clientId, callerRefusals);
  const parsed = claimsSchema.safeParse(claims);
  if (!parsed.success)
    throw new MayflyError('workload_token_invalid', undefined, { errors: fieldErrors(parsed.error) });
  requireLive(parsed.data, now);
  const { azp = clientId } = parsed.data;
  if (parsed.data.nonce !== nonce || azp !== clientId) throw new MayflyError('workload_token_invalid');
  return claims;
}

/** RFC 6749 §4.1.3 and RFC 7636 §4.5. No redirect is followed: the code and the secret are for this address alone. */
async function exchange(
  { name, dev }: OperatorSource,
  login: NonNullable<OperatorSource['login']>,
  { code, verifier, redirectUri }: SignInCode,
  { fetch, secret, timeoutMs, closing }: SignInOptions,
): Promise<string> {
  requireSafeUrl(login.tokenEndpoint, dev);
  const { clientId, clientSecret } = login;
  const headers: Record<string, string> = { accept: 'application/json' };
  if (clientSecret !== undefined) {
    if (secret === undefined) throw new Error('there is no secret to be read');
    // RFC 6749 §2.3.1: each is encoded as in a form before they are joined.
    const pair = [clientId, secret(name, clientSecret).reveal()].map(encodeURIComponent).join(':');
    headers['authorization'] = `Basic ${Buffer.from(pair).toString('base64')}`;
  }
  const response = await fetch(login.tokenEndpoint, {
    method: 'POST',
    redirect: 'manual',
    headers,
    body: new URLSearchParams({
      grant_type: 'authorization_code',
      code,
      redirect_uri: redirectUri,
      code_verifier: verifier,
      ...(clientSecret === undefined ? { client_id: clientId } : {}),
    }),
    signal: within(timeoutMs, closing),
  });
  const answer = await readBounded(response);
  if (response.status !== 200) throw new Error(`answered ${response.status}`);
  return answerSchema.parse(parseStrictJson(answer.toString())).id_token;
}
