import type { Command } from 'commander';
import { webhooksBody, webhookTestBody } from '../http/webhook-bodies.ts';
import { CliError } from './fail.ts';
import { callAsOperator } from './operator.ts';
import { say, table } from './output.ts';

/** `mayfly webhooks`. */
export function addWebhookCommands(program: Command): void {
  const webhooks = program.command('webhooks').description('Webhooks of the catalog: how they fare, and a test.');
  webhooks
    .command('list')
    .description('The webhooks, and how they fare.')
    .option('--json', 'as JSON')
    .action(async ({ json }: { json?: boolean }) => {
      const body = await callAsOperator('GET', '/v1/webhooks', webhooksBody);
      if (json === true) return say(JSON.stringify(body, null, 2));
      if (body.items.length === 0) return say('There is none.');
      const head = ['WEBHOOK', 'FORMAT', 'STATE', 'PENDING', 'GIVEN UP', 'LAST SUCCESS', 'FAILING SINCE', 'LAST ERROR'];
      const rows = body.items.map((one) => [
        ...[one.name, one.format, one.state, String(one.pending), String(one.given_up), one.last_success_at ?? '-'],
        ...[one.failing_since ?? '-', one.last_error ?? '-'],
      ]);
      say(table([head, ...rows]));
    });
  webhooks
    .command('test <name>')
    .description('Send one an event `webhook.test`, and wait until it was taken.')
    .option('--json', 'as JSON')
    .action(async (name: string, { json }: { json?: boolean }) => {
      const path = `/v1/webhooks/${encodeURIComponent(name)}/test?wait=20`;
      const test = await callAsOperator('POST', path, webhookTestBody);
      if (json === true) say(JSON.stringify(test, null, 2));
      if (test.state === 'delivered') return json === true ? undefined : say(`${name} took ${test.webhook_id}.`);
      const why = test.last_error === undefined ? 'was not told yet' : `did not take it (${test.last_error})`;
      throw new CliError(`${name} ${why}. It is tried again: mayfly webhooks list.`);
    });
}
