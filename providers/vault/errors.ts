import { z } from 'zod';
import { ProviderError } from '../../src/provider.ts';
import type { Received } from './transport.ts';

const errorBody = z.object({ errors: z.array(z.string()) });

/**
 * What may be repeated of what Vault says, by words of its own or of the systems behind it that are known to hold nothing of ours.
 * All else may hold a statement with its password, a token, a lease id: it stands in Vault's own log.
 */
const known: readonly (readonly [RegExp, string])[] = [
  // Of these the meaning is taken elsewhere.
  [/invalid accessor/i, 'invalid accessor'],
  [/invalid lease|lease not found/i, 'lease not found'],
  [/check-and-set/i, 'check-and-set did not match'],
  [/no handler for route/i, 'no handler for route'],
  [/\bsealed\b/i, 'sealed'],
  [/upgrading from non-versioned/i, 'the mount is not ready yet (upgrading)'],
  // Logins.
  [/invalid role or secret ID|invalid role ID|role ID/i, 'invalid role or secret id'],
  [/invalid secret.?id|failed to find secret.?ID/i, 'invalid secret id'],
  [/error (verifying|validating) token|error validating (claims|signature)/i, 'the token was not accepted'],
  [/\(exp\)|token (is|has) expired|expired token/i, 'the token has expired'],
  [/\(aud\)|audience/i, 'the audience does not match'],
  [/claim .{0,80}does not match|error validating claims/i, 'a claim does not match'],
  [/invalid role name|role .{0,140}(could not be found|not found)|unknown role/i, 'there is no such role'],
  [/namespace not authorized/i, 'namespace not authorized'],
  [/service account name not authorized/i, 'service account name not authorized'],
  [/lookup failed/i, 'the lookup of the service account failed'],
  [/login attempts?|user is locked/i, 'locked after failed logins'],
  // Tokens and leases.
  [/must be subset of|allowed_policies|not allowed by (the )?role/i, 'the token role does not allow these policies'],
  [/lease is not renewable|not renewable/i, 'not renewable'],
  [/irrevocable/i, 'irrevocable'],
  [/max(imum)? ?ttl|exceed/i, 'a limit is exceeded'],
  [/rate limit|quota/i, 'a quota is exceeded'],
  [/unsupported (path|operation)/i, 'unsupported by the engine'],
  [/permission denied/i, 'permission denied'],
  [/missing required|is required|missing client token/i, 'something required is missing'],
  // Systems behind it.
  [/failed to revoke/i, 'failed to revoke'],
  [
    /failed to find entry for connection|unknown database|no such connection/i,
    'the connection of the engine is not there',
  ],
  [/connection refused/i, 'connection refused'],
  [/connection reset|broken pipe|unexpected EOF|\bEOF\b/i, 'the connection broke'],
  [/no such host/i, 'no such host'],
  [/no route to host|network is unreachable/i, 'no route to host'],
  [/i\/o timeout|deadline exceeded|timed? ?out|context canceled/i, 'timed out'],
  [/x509|certificate|tls:/i, 'TLS failed'],
  [/too many (clients|connections)|remaining connection slots/i, 'too many connections'],
  [/(password )?authentication failed/i, 'authentication failed'],
  [/some objects depend on it|cannot be dropped/i, 'objects depend on it'],
  [/read-only (transaction|replica)|recovery mode/i, 'read-only'],
  [/syntax error/i, 'syntax error'],
  [/already exists/i, 'already exists'],
  [/does not exist/i, 'does not exist'],
];
const sqlState = /\bSQLSTATE:? ?([0-9A-Z]{5})\b/;

/** What Vault said against it, as far as that is known to hold no secret; empty when it said nothing. */
export function saidBy({ body }: Received): string {
  const parsed = errorBody.safeParse(body);
  const text = parsed.success ? parsed.data.errors.join('; ') : '';
  if (text.trim() === '') return '';
  const [, code] = sqlState.exec(text) ?? [];
  const phrases = known.flatMap(([words, phrase]) => (words.test(text) ? [phrase] : []));
  const all = [...new Set([...phrases, ...(code === undefined ? [] : [`SQLSTATE ${code}`])])];
  return all.length === 0 ? 'what it says is in its own log' : all.join(', ');
}

/**
 * Whether it says itself that it takes no requests, and so did nothing: sealed, not initialised, or a replica for disasters. A balancer's
 * 503 may come when the request was passed on.
 */
export function isAway({ status, body }: Received): boolean {
  if (status !== 503 && status !== 472 && status !== 501) return false;
  if (healthBody.safeParse(body).success) return true;
  const parsed = errorBody.safeParse(body);
  return (
    parsed.success &&
    /\b(sealed|not (yet )?initialized|disaster recovery|dr secondary)\b/i.test(parsed.data.errors.join(' '))
  );
}

const healthBody = z.object({ initialized: z.boolean(), sealed: z.boolean() });

/** An answer that is not what was wanted, as one of the four classes. Vault has no codes: the status decides. */
export function refusal(received: Received, doing: string): ProviderError {
  const { status } = received;
  const said = saidBy(received);
  const because = said === '' ? '' : `: ${said}`;
  switch (status) {
    case 202:
      return new ProviderError('retryable', `${doing}: it was queued and is not done`);
    case 403:
      return new ProviderError('denied', `${doing}: permission denied`);
    case 404:
      return new ProviderError('misconfigured', `${doing}: there is no such path (or it may not be seen)${because}`);
    case 412:
      return new ProviderError('retryable', `${doing}: the node lags behind`);
    case 429:
      return new ProviderError('retryable', `${doing}: too many requests`, { wholeTarget: true });
    case 503:
      return new ProviderError(
        'retryable',
        /sealed/i.test(said) ? `${doing}: it is sealed` : `${doing}: it is not available`,
        {
          wholeTarget: true,
        },
      );
    default:
      return status >= 500 || status < 200
        ? new ProviderError('retryable', `${doing}: it failed (${status})${because}`, {
            wholeTarget: status === 502 || status === 504,
          })
        : new ProviderError('misconfigured', `${doing}: it refused (${status})${because}`);
  }
}

/** Its answer is not one that this call has. */
export function unreadable(doing: string): ProviderError {
  return new ProviderError('retryable', `${doing}: the answer is not what Vault gives`);
}
