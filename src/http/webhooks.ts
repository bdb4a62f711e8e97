import type { ListedWebhook } from '../broker/list-webhooks.ts';
import { wireId } from '../domain/ids.ts';
import { timed } from './queue-views.ts';
import { emptyBody, noHeaders, noQuery, waitForDelivery } from './requests.ts';
import { noBody, type Route, route } from './route.ts';
import { webhookPath, webhooksBody, webhookTestBody, type WebhookView } from './webhook-bodies.ts';

const listWebhooks = route({
  method: 'get',
  path: '/v1/webhooks',
  name: 'listWebhooks',
  tag: 'operating',
  summary: 'List the webhooks, and how they fare',
  description:
    'Of the active catalog. One that may tell of any target is for roles that hold everywhere. Role: viewer.',
  query: noQuery,
  headers: noHeaders,
  body: noBody,
  answers: { 200: { says: 'The webhooks, by name.', schema: webhooksBody } },
  refusals: ['operator_only'],
  handle: async (call) => {
    const listed = await call.useCases.listWebhooks(call.broker, call.caller);
    return { status: 200, body: { items: listed.map(viewOfWebhook) } };
  },
});

const testWebhook = route({
  method: 'post',
  path: '/v1/webhooks/{id}/test',
  name: 'testWebhook',
  tag: 'operating',
  summary: 'Send a webhook a test',
  description: 'An event `webhook.test`, on the way of all events: one that fails is tried again. Role: operator.',
  params: webhookPath,
  query: waitForDelivery,
  headers: noHeaders,
  body: { schema: emptyBody, take: 'if-sent' },
  answers: {
    202: { says: 'It was not taken yet.', schema: webhookTestBody },
    200: { says: 'With `wait`: it was taken.', schema: webhookTestBody },
  },
  refusals: ['operator_only', 'not_found', 'too_many_polls'],
  handle: async (call) => {
    const webhook = call.targetName();
    const { eventId, state, attempts, lastError } = await call.poll(call.query.wait ?? 0, (seconds, context) =>
      call.useCases.testWebhook(call.broker, call.caller, webhook, seconds, context),
    );
    const error = lastError === null ? {} : { last_error: lastError };
    return {
      status: state === 'delivered' ? 200 : 202,
      body: { webhook, webhook_id: wireId('evt', eventId), state, attempts, ...error },
    };
  },
});

export const webhookRoutes: readonly Route[] = [listWebhooks, testWebhook];

function viewOfWebhook({ definition, state }: ListedWebhook): WebhookView {
  const failing = state.failingSince === null ? 'ok' : 'failing';
  return {
    ...{ name: definition.name, format: definition.format },
    events: [...definition.events],
    targets: definition.targets === null ? null : [...definition.targets],
    state: state.disabledAt === null ? failing : 'disabled',
    pending: state.pending,
    ...timed('oldest_pending_at', state.oldestPendingAt),
    given_up: state.givenUp,
    ...timed('last_success_at', state.lastSuccessAt),
    ...timed('failing_since', state.failingSince),
    ...(state.lastError === null ? {} : { last_error: state.lastError }),
    ...timed('last_error_at', state.lastErrorAt),
    ...timed('not_before', state.holdUntil),
  };
}
