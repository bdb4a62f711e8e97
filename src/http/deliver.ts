import { MayflyError } from '../domain/errors.ts';
import { wireId } from '../domain/ids.ts';
import type { Secret } from '../domain/secret.ts';
import { type DeliveryKey, readDeliveryKey, seal } from '../identity/delivery-key.ts';
import type { GrantWithRevocation } from '../store/grants.ts';
import type { CredentialBody, HandedOver } from './answers.ts';
import type { Exchange } from './exchange.ts';
import { isWritten } from './write.ts';

/** A credential on its way to its agent. */
interface Delivery {
  readonly grant: GrantWithRevocation;
  readonly credential: Secret<Readonly<Record<string, unknown>>>;
  readonly expiresAt: Date;
}

/** The key that a body wants its credential sealed to. @throws MayflyError `delivery_key_refused` */
export function deliveryKeyOf(body: {
  readonly delivery?: { readonly jwk: Readonly<Record<string, unknown>> } | undefined;
}): DeliveryKey | null {
  return body.delivery === undefined ? null : readDeliveryKey(body.delivery.jwk);
}

/**
 * Opens the secret, to be written into this exchange's answer and nowhere else: besides the providers this is the one place that does.
 * From here on the exchange owes its delivery. With a key it is sealed; when that fails it is taken back.
 */
export async function handOver(exchange: Exchange, delivery: Delivery, key: DeliveryKey | null): Promise<HandedOver> {
  const { grant, credential, expiresAt } = delivery;
  const grantId = wireId('grt', grant.grant.id);
  const told = { expires_at: expiresAt.toISOString(), guarantee: { ...grant.grant.guarantee }, grant_id: grantId };
  const open = (): CredentialBody => ({ ...credential.reveal(), ...told });
  if (key === null) {
    exchange.handedOver.push(grant);
    return open();
  }
  try {
    const sealed = await seal(key, open(), { grantId, expiresAt });
    exchange.handedOver.push(grant);
    return sealed;
  } catch (cause) {
    await takeBack(exchange, grant);
    throw new MayflyError('internal', undefined, { cause });
  }
}

/**
 * Takes back each credential whose answer could not be written: nobody holds it, so nobody will release it. Written means given to
 * the operating system; what is lost after that, the deadline ends.
 */
export async function takeBackUndelivered(exchange: Exchange, delivered: boolean): Promise<void> {
  if (exchange.handedOver.length === 0 || (delivered && (await isWritten(exchange.response)))) return;
  await Promise.all(exchange.handedOver.map((grant) => takeBack(exchange, grant)));
}

async function takeBack({ deps, useCases, context }: Exchange, grant: GrantWithRevocation): Promise<void> {
  try {
    await useCases.takeBackUndelivered(deps.broker, grant, context);
  } catch (error) {
    // Its obligation stands in the store all the same, at the grant's deadline.
    deps.log.error(
      { request_id: context.requestId, grant_id: wireId('grt', grant.grant.id), error },
      'an undelivered credential could not be taken back',
    );
  }
}
