import { z } from 'zod';
import { ProviderError } from '../../src/provider.ts';
import type { Received } from './transport.ts';

const errorBody = z.object({ errors: z.array(z.string()) });
const mostSaid = 240;

/** What Vault said against it, in its own words but for what may be a secret in them. */
export function saidBy({ body }: Received): string {
  const parsed = errorBody.safeParse(body);
  const text = parsed.success ? parsed.data.errors.join('; ') : '';
  return text
    .replaceAll(/\s+/g, ' ')
    .replaceAll(/\/\/[^\s/@]*@/g, '//[secret]@')
    .replaceAll(/\b(password|secret\w*|token|pwd)(\s*[=:]\s*)("[^"]*"|'[^']*'|\S+)/gi, '$1$2[secret]')
    .replaceAll(/\b((hv)?[sbr]\.[A-Za-z0-9_-]{20,})/g, '[secret]')
    .slice(0, mostSaid)
    .trim();
}

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
