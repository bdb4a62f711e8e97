import type { Secret } from '../domain/secret.ts';
import { wireId } from '../domain/ids.ts';
import type { GrantWithRevocation } from '../store/grants.ts';
import type { CredentialBody } from './answers.ts';
import type { Exchange } from './exchange.ts';
import { isWritten } from './write.ts';

/** A credential on its way to its agent. */
interface Delivery {
  readonly grant: GrantWithRevocation;
  readonly credential: Secret<Readonly<Record<string, unknown>>>;
  readonly expiresAt: Date;
}

/**
 * Opens the secret, to be written into this exchange's answer and nowhere else: besides the providers this is the one place that does.
 * From here on the exchange owes its delivery.
 */
export function handOver(exchange: Exchange, { grant, credential, expiresAt }: Delivery): CredentialBody {
  exchange.handedOver.push(grant);
  return {
    ...credential.reveal(),
    expires_at: expiresAt.toISOString(),
    guarantee: { ...grant.grant.guarantee },
    grant_id: wireId('grt', grant.grant.id),
  };
}

/**
 * Takes back each credential whose answer could not be written: nobody holds it, so nobody will release it. Written means given to
 * the operating system; what is lost after that, the deadline ends.
 */
export async function takeBackUndelivered(exchange: Exchange, delivered: boolean): Promise<void> {
  if (exchange.handedOver.length === 0 || (delivered && (await isWritten(exchange.response)))) return;
  const { deps, useCases, context } = exchange;
  await Promise.all(
    exchange.handedOver.map(async (grant) => {
      try {
        await useCases.takeBackUndelivered(deps.broker, grant, context);
      } catch (error) {
        // Its obligation stands in the store all the same, at the grant's deadline.
        deps.log.error(
          { request_id: context.requestId, grant_id: wireId('grt', grant.grant.id), error },
          'an undelivered credential could not be taken back',
        );
      }
    }),
  );
}
