import { mkdtempSync, rmSync } from 'node:fs';
import { Agent, request } from 'node:https';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import express from 'express';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { makeCertificate, type TestCertificate as ServerCertificate } from '../../test/support/certificates.ts';
import { issue, makeAuthority } from '../identity/testing/svids.ts';
import { certificatesOf } from './client-certificates.ts';
import { createLogger } from './log.ts';
import { type RunningServer, startServer } from './server.ts';

const root = makeAuthority();
const between = issue(root, { name: 'between', authority: true });
const own = issue(between);

let folder: string;
let server: RunningServer | undefined;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'mayfly-clients-'));
});
afterEach(async () => {
  vi.useRealTimers();
  await server?.close(1);
  rmSync(folder, { recursive: true });
});

/** Answers the serial numbers of the certificates that it sees. */
async function start(clients: 'off' | 'optional'): Promise<ServerCertificate> {
  const app = express();
  app.use((asked, response) => {
    response.json(certificatesOf(asked).map(({ serialNumber }) => serialNumber));
  });
  const made = makeCertificate(folder, ['127.0.0.1']);
  const config = {
    ...{ host: '127.0.0.1', port: 0, tls_cert_file: made.certFile, tls_key_file: made.keyFile },
    tls_client_certificates: clients,
  };
  server = await startServer({ app, config, log: createLogger('silent') });
  return made;
}

async function seen(ca: string, agent: Agent | false, shown = [own, between]): Promise<unknown> {
  const cert = shown.map((each) => each.cert).join('');
  const answer = await new Promise<string>((resolve, reject) => {
    const to = { host: '127.0.0.1', port: server?.port, ca, agent, ...(cert === '' ? {} : { cert, key: own.key }) };
    request(to, (response) => void text(response).then(resolve, reject))
      .on('error', reject)
      .end();
  });
  return JSON.parse(answer);
}

const serials = (...all: readonly (typeof own)[]) => all.map(({ x509 }) => x509.serialNumber);

describe('a listener that asks for client certificates', () => {
  test('sees those that are shown, the caller’s own first, at each request of the connection', async () => {
    const { caPem } = await start('optional');
    const agent = new Agent({ keepAlive: true, maxSockets: 1 });
    try {
      for (let time = 1; time <= 3; time++) expect(await seen(caPem, agent)).toEqual(serials(own, between));
    } finally {
      agent.destroy();
    }
  });

  test('sees none where none is shown, and lets the caller in', async () => {
    const { caPem } = await start('optional');
    expect(await seen(caPem, false, [])).toEqual([]);
  });

  test('sees no more than six, however many are shown', async () => {
    const { caPem } = await start('optional');
    expect(await seen(caPem, false, [own, ...Array.from({ length: 9 }, () => between)])).toHaveLength(6);
  });

  test.each(['TLSv1.2', 'TLSv1.3'] as const)(
    'sees them by each connection of a client that remembers sessions, over %s, also with a renewed certificate of its own',
    async (maxVersion) => {
      vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval'] });
      const { caPem } = await start('optional');
      const agent = new Agent({ keepAlive: false, maxVersion });
      const connectThrice = async (ca: string) => {
        for (let connection = 1; connection <= 3; connection++)
          expect(await seen(ca, agent)).toEqual(serials(own, between));
      };
      await connectThrice(caPem);
      const renewed = makeCertificate(folder, ['127.0.0.1']);
      vi.advanceTimersByTime(61_000);
      await connectThrice(renewed.caPem);
    },
  );
});

test('a listener that does not ask sees none, whatever the client has', async () => {
  const { caPem } = await start('off');
  expect(await seen(caPem, false)).toEqual([]);
});
