import { execFile } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { createServer as createTlsServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, describe, expect, test } from 'vitest';
import { makeCertificate } from '../support/certificates.ts';

const script = fileURLToPath(new URL('../../docker/healthcheck.mjs', import.meta.url));

/** The exit status of the image's health check with these settings. */
function check(env: Record<string, string>): Promise<number> {
  return new Promise((resolve) => {
    const child = execFile(process.execPath, [script], { env });
    child.on('exit', (code) => resolve(code ?? -1));
  });
}

describe("the image's health check", () => {
  let server: Server | undefined;
  afterEach(() => server?.close());

  async function listen(made: Server): Promise<string> {
    server = made;
    made.listen(0, '127.0.0.1');
    await once(made, 'listening');
    return String((made.address() as AddressInfo).port);
  }
  const broker = (status: number) => (request: IncomingMessage, response: ServerResponse) => {
    response.writeHead(request.url === '/healthz' ? status : 404).end();
  };

  test('is content with a broker that says it is alive', async () => {
    const port = await listen(createServer(broker(200)));
    expect(await check({ MAYFLY_PORT: port })).toBe(0);
    expect(await check({ MAYFLY_PORT: port, MAYFLY_HOST: '0.0.0.0' })).toBe(0);
    expect(await check({ MAYFLY_PORT: port, MAYFLY_HOST: '127.0.0.1' })).toBe(0);
  });

  test('speaks TLS where the broker does', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'mayfly-health-'));
    try {
      const { certFile, keyFile } = makeCertificate(folder, ['broker.example.com']);
      const tls = { cert: readFileSync(certFile), key: readFileSync(keyFile) };
      const port = await listen(createTlsServer(tls, broker(200)));
      expect(await check({ MAYFLY_PORT: port, MAYFLY_TLS_CERT_FILE: certFile })).toBe(0);
      expect(await check({ MAYFLY_PORT: port })).toBe(1);
    } finally {
      rmSync(folder, { recursive: true });
    }
  });

  test('is not content with a broker that says it is ill, or with none', async () => {
    const port = await listen(createServer(broker(503)));
    expect(await check({ MAYFLY_PORT: port })).toBe(1);
    server?.close();
    expect(await check({ MAYFLY_PORT: port })).toBe(1);
  });
});
