import { afterEach, beforeEach, expect, it } from 'vitest';
import { createIdentity, type IdentityObserver, type IdentityService } from './index.ts';
import { type JwksServer, startJwksServer } from './testing/jwks-server.ts';
import { makeKey } from './testing/keys.ts';
import { makeTrust } from './testing/trust.ts';

let server: JwksServer;
let identity: IdentityService;
const told: string[] = [];
const observer: IdentityObserver = {
  trusted: (sources) => told.push(`trusted ${sources.join(' ')}`),
  keysFetched: (source) => told.push(`fetched ${source}`),
  identityFailed: (source, what) => told.push(`failed ${source} ${what}`),
};

beforeEach(async () => {
  told.length = 0;
  server = await startJwksServer();
  identity = createIdentity({ observer });
});
afterEach(async () => {
  identity.close();
  await server.close();
});

it('an observer is told who is trusted, whose keys came, and whose did not', async () => {
  const trust = (url: string) => makeTrust({ source: { jwks: { url }, dev: true } }).trust;
  server.serve(makeKey('first'));
  await identity.warmUp(trust(server.url));
  await identity.warmUp(trust('http://127.0.0.1:1/jwks'));
  const trusted = 'trusted orchestrator idp people';
  expect(told).toStrictEqual([trusted, 'fetched idp', trusted, 'failed idp keys']);
});
