import { afterAll, beforeAll, expect, test } from 'vitest';
import { startTestApp, type TestApp } from './testing/test-app.ts';

let app: TestApp;
beforeAll(async () => {
  app = await startTestApp();
});
afterAll(() => app.stop());

test('a client learns how to call without a token, and not whom the catalog trusts', async () => {
  const { status, body } = await app.ask('GET', '/.well-known/oauth-protected-resource', { token: false });
  expect([status, body]).toEqual([
    200,
    {
      resource: 'http://127.0.0.1:7420',
      resource_name: 'Mayfly',
      resource_documentation: 'http://127.0.0.1:7420/docs',
      bearer_methods_supported: ['header'],
      authorization_details_types_supported: ['mayfly'],
      dpop_signing_alg_values_supported: ['ES256', 'ES384', 'EdDSA', 'Ed25519', 'PS256', 'RS256'],
      dpop_bound_access_tokens_required: false,
    },
  ]);
});
