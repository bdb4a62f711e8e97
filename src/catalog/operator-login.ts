import { z } from 'zod';
import { text, uniqueList } from './names.ts';
import { secretFile } from './source-schema.ts';
import type { OperatorLogin } from './types.ts';

/** How operators sign in with a browser. Addresses are said here, never found: an issuer's document could move them. */
export const operatorLoginSchema = z.strictObject({
  client_id: text(200),
  client_secret: secretFile.optional(),
  authorization_endpoint: z.string().max(2000),
  token_endpoint: z.string().max(2000),
  scopes: uniqueList(z.string().regex(/^[\x21\x23-\x5b\x5d-\x7e]{1,100}$/, 'must be a scope')).default(['openid']),
});

export type OperatorLoginWire = z.infer<typeof operatorLoginSchema>;

export function operatorLogin(wire: OperatorLoginWire): OperatorLogin {
  return {
    clientId: wire.client_id,
    clientSecret: wire.client_secret,
    authorizationEndpoint: wire.authorization_endpoint,
    tokenEndpoint: wire.token_endpoint,
    scopes: wire.scopes,
  };
}
