import { constants } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import { createServer as createTlsServer, type Server as TlsServer } from 'node:https';
import type { Express } from 'express';
import type { Config } from '../config.ts';
import { inHandOf } from './in-hand.ts';
import type { Logger } from './log.ts';

/** A workload token may be 16 KiB, and stands in a header among others. */
const MAX_HEADER_BYTES = 24 * 1024;
/** For a request to arrive whole; an answer may take longer, as long polls do. */
const REQUEST_MILLIS = 30_000;
const HEADERS_MILLIS = 15_000;
/** Longer than proxies keep idle connections (60 s is usual), so that it is they who close them and no request meets a closing one. */
const KEEP_ALIVE_MILLIS = 75_000;
const IDLE_SWEEP_MILLIS = 50;
/** Certificates are renewed under a running process. */
const CERTIFICATE_MILLIS = 60_000;

export interface ServerOptions {
  readonly app: Express;
  readonly config: Pick<Config, 'host' | 'port' | 'tls_cert_file' | 'tls_key_file' | 'tls_client_certificates'>;
  readonly log: Logger;
}

export interface RunningServer {
  readonly port: number;
  /** Where it listens. */
  readonly url: string;
  /**
   * Stops accepting, ends long polls, lets requests in hand finish, and cuts what is left after `graceSeconds`. Said again, it
   * waits for the same end.
   */
  close(graceSeconds: number): Promise<void>;
}

/** Listens. @throws Error with `code` (EADDRINUSE, EACCES, …) when it can not, and what node:tls says of a bad certificate. */
export async function startServer({ app, config, log }: ServerOptions): Promise<RunningServer> {
  const limits = {
    maxHeaderSize: MAX_HEADER_BYTES,
    headersTimeout: HEADERS_MILLIS,
    requestTimeout: REQUEST_MILLIS,
    keepAliveTimeout: KEEP_ALIVE_MILLIS,
    connectionsCheckingInterval: 5_000,
    noDelay: true,
    // Our own refusal says more.
    requireHostHeader: false,
  };
  const certificate = certificateOf(config);
  const terms = termsOf(config);
  const server =
    certificate === undefined
      ? createServer(limits, app)
      : createTlsServer({ ...limits, ...certificate.read(), ...terms }, app);
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(config.port, config.host, () => {
      server.off('error', reject);
      resolve();
    });
  });
  server.on('error', (error) => log.error({ error }, 'the listener is in trouble'));
  const renewal =
    certificate === undefined || !('setSecureContext' in server) ? undefined : renew(server, certificate, terms, log);

  const address = server.address();
  const port = typeof address === 'object' && address !== null ? address.port : config.port;
  const host = config.host.includes(':') ? `[${config.host}]` : config.host;
  let closing: Promise<void> | undefined;
  return {
    port,
    url: `${certificate === undefined ? 'http' : 'https'}://${host}:${port}`,
    close: (graceSeconds) => {
      clearInterval(renewal);
      closing ??= drain(server, app, graceSeconds);
      return closing;
    },
  };
}

interface Terms {
  readonly minVersion: 'TLSv1.2';
  readonly requestCert?: true;
  readonly rejectUnauthorized?: false;
  readonly secureOptions?: number;
}

/** Any client certificate is let in, and none is believed here: whose count says the catalog, and that changes. */
function termsOf({ tls_client_certificates: clients }: ServerOptions['config']): Terms {
  const minVersion = 'TLSv1.2';
  if (clients === 'off') return { minVersion };
  // A resumed connection knows the client's own certificate, but not those between it and its authority any more.
  return { minVersion, requestCert: true, rejectUnauthorized: false, secureOptions: constants.SSL_OP_NO_TICKET };
}

async function drain(server: Server, app: Express, graceSeconds: number): Promise<void> {
  const inHand = inHandOf(app);
  const closed = new Promise<void>((resolve) => {
    server.close(() => resolve());
  });
  inHand.endPolls();
  // `close` alone would wait for kept-alive connections to time out by themselves.
  const sweep = setInterval(() => server.closeIdleConnections(), IDLE_SWEEP_MILLIS);
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<void>((resolve) => {
    timer = setTimeout(resolve, graceSeconds * 1000);
  });
  server.closeIdleConnections();
  await Promise.race([Promise.all([closed, inHand.idle()]), late]);
  clearTimeout(timer);
  clearInterval(sweep);
  server.closeAllConnections();
  await closed;
}

interface Certificate {
  read(): { readonly cert: Buffer; readonly key: Buffer };
}

function certificateOf({
  tls_cert_file: certFile,
  tls_key_file: keyFile,
}: ServerOptions['config']): Certificate | undefined {
  if (certFile === undefined || keyFile === undefined) return undefined;
  return { read: () => ({ cert: readFileSync(certFile), key: readFileSync(keyFile) }) };
}

/** Takes a renewed certificate into use. One that does not fit its key (half of the pair is written) leaves the one before in place. */
function renew(server: TlsServer, certificate: Certificate, terms: Terms, log: Logger): NodeJS.Timeout {
  let last = certificate.read();
  const timer = setInterval(() => {
    try {
      const pair = certificate.read();
      if (pair.cert.equals(last.cert) && pair.key.equals(last.key)) return;
      server.setSecureContext({ ...pair, ...terms });
      last = pair;
      log.info('the listener has a new certificate');
    } catch (error) {
      log.error({ error }, 'the listener’s certificate can not be read again; the one before stays');
    }
  }, CERTIFICATE_MILLIS);
  return timer.unref();
}
