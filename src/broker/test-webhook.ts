import { randomUUID } from 'node:crypto';
import { setTimeout as pause } from 'node:timers/promises';
import { MayflyError } from '../domain/errors.ts';
import { step } from '../domain/step.ts';
import type { Caller } from '../identity/types.ts';
import { findTest, type TestDelivery } from '../store/deliveries.ts';
import type { BrokerDeps, CallContext } from './deps.ts';
import { operatorEvent } from './evidence.ts';
import { isWebhookInScope } from './list-webhooks.ts';
import { requireRole } from './operator-scope.ts';

const LOOK_MILLIS = 250;

/**
 * Has a webhook told of a `webhook.test`, on the way of all that it is told.
 * @param seconds To wait until it was taken; 0 only asks. One that fails is tried again, as any.
 * @throws MayflyError `operator_only`, `not_found`
 */
export async function testWebhook(
  deps: BrokerDeps,
  caller: Caller,
  name: string,
  seconds: number,
  context: CallContext,
): Promise<TestDelivery> {
  const { operator, scope } = requireRole(deps, caller, 'operator');
  const webhook = deps.catalog.current().catalog.webhooks.find((one) => one.name === name);
  if (webhook === undefined || !isWebhookInScope(scope, webhook)) throw new MayflyError('not_found');
  const test = randomUUID();
  await deps.db.transaction({}, async (tx) => {
    // The store's trigger makes the delivery.
    tx.record(operatorEvent('webhook.tested', deps.catalog, context, operator, { resource: name, payload: { test } }));
    step('test-webhook.before');
  });
  step('test-webhook.after');
  const end = performance.now() + seconds * 1000;
  for (;;) {
    const delivery = await findTest(deps.db, name, test);
    // The catalog that answers here is no longer the active one.
    if (delivery === undefined) throw new MayflyError('not_found');
    const tried = delivery.state !== 'pending' || delivery.lastError !== null;
    if (tried || performance.now() >= end || context.gone.aborted) return delivery;
    await pause(LOOK_MILLIS, undefined, { signal: context.gone }).catch(() => {});
  }
}
