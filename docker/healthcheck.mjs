// Asks the broker in this container whether it is alive, in the way that its own settings say it listens.
import { request as http } from 'node:http';
import { request as https } from 'node:https';

const env = process.env;
const host = ['0.0.0.0', '::', undefined].includes(env.MAYFLY_HOST) ? '127.0.0.1' : env.MAYFLY_HOST;
const ask = env.MAYFLY_TLS_CERT_FILE === undefined ? http : https;

// The certificate names the public address, not this one, and nothing secret is said.
const options = { host, port: env.MAYFLY_PORT ?? 7420, path: '/healthz', rejectUnauthorized: false };
const asked = ask(options, (answer) => {
  process.exit(answer.statusCode === 200 ? 0 : 1);
});
asked.setTimeout(4000, () => process.exit(1));
asked.on('error', () => process.exit(1));
asked.end();
