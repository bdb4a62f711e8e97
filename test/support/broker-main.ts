import { writeSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { readConfig } from '../../src/config.ts';
import { Secret } from '../../src/domain/secret.ts';
import { onStep } from '../../src/domain/step.ts';
import { createLogger } from '../../src/http/log.ts';
import { startBroker } from '../../src/wiring.ts';
import type { Fall, ProcessSettings } from './broker-process.ts';
import { clockOffBy } from './wrong-clock.ts';

type Order = { readonly files: Record<string, string> } | { readonly falls: readonly Fall[] };

/** A broker in a process of its own, for tests that kill it. Orders come as JSON lines on its input; each is answered by a line. */
const orders = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const next = async <T>(): Promise<T | undefined> => {
  const line = await orders.next();
  return line.done === true ? undefined : (JSON.parse(line.value) as T);
};
const settings = await next<ProcessSettings>();
const [, , migrationsFolder] = process.argv;
if (settings === undefined || migrationsFolder === undefined) throw new Error('no settings');
const { clockOffMillis = 0 } = settings;
if (clockOffMillis !== 0) globalThis.Date = clockOffBy(clockOffMillis);
let falls = [...(settings.falls ?? [])];
onStep((name) => {
  const fall = falls.find(({ step }) => step === name);
  if (fall === undefined) return;
  falls = falls.filter((each) => each !== fall);
  // At once, without the event loop: nothing more is done before the signal.
  writeSync(process.stdout.fd, `${JSON.stringify({ reached: name, signal: fall.signal })}\n`);
  process.kill(process.pid, fall.signal);
});
const config = { ...readConfig(settings.env), database_url: new Secret(settings.databaseUrl) };
const broker = await startBroker({
  config,
  dev: true,
  migrationsFolder,
  env: settings.env,
  log: createLogger(config.log_level, process.stderr),
});
const say = (answer: object) => process.stdout.write(`${JSON.stringify(answer)}\n`);
say({ url: broker.url, installation: broker.installation });
process.on('SIGTERM', () => void broker.stop().then(() => process.exit(0)));
for (let order = await next<Order>(); order !== undefined; order = await next<Order>()) {
  if ('falls' in order) {
    falls = [...order.falls];
    say({});
    continue;
  }
  say(
    await broker.apply(order.files, 'test').then(
      () => ({}),
      (error: unknown) => ({ error: String(error) }),
    ),
  );
}
// Its parent is gone.
await broker.stop();
process.exit(0);
