import { createInterface } from 'node:readline';
import { defaultProvider } from '@aws-sdk/credential-provider-node';

/**
 * A program that knows the AWS SDK and nothing of ours. Its first line says what it was started with; then, for each line that it reads,
 * one says what the SDK's default chain answers by then.
 */
const credentials = defaultProvider();
const say = (what: object) => process.stdout.write(`${JSON.stringify(what)}\n`);
say({ env: process.env, argv: process.argv });
for await (const _ of createInterface({ input: process.stdin })) {
  say(await credentials().catch((error: unknown) => ({ error: String(error) })));
}
