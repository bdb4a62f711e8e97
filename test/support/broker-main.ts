import { createInterface } from 'node:readline';
import { readConfig } from '../../src/config.ts';
import { Secret } from '../../src/domain/secret.ts';
import { createLogger } from '../../src/http/log.ts';
import { startBroker } from '../../src/wiring.ts';
import { migrationsFolder } from './store.ts';

/** A broker in a process of its own, for tests that kill it. Orders come as JSON lines on its input; each is answered by a line. */
const orders = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const next = async <T>(): Promise<T | undefined> => {
  const line = await orders.next();
  return line.done === true ? undefined : (JSON.parse(line.value) as T);
};
const settings = await next<{ env: Record<string, string>; databaseUrl: string }>();
if (settings === undefined) throw new Error('no settings');
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
for (let order = await next<{ files: Record<string, string> }>(); order !== undefined; order = await next()) {
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
