import { z } from 'zod';
import { PROOF_ALGORITHMS } from '../identity/dpop.ts';
import type { Page } from './page.ts';
import { noBody } from './route.ts';
import { writeAnswer } from './write.ts';

const PATH = '/.well-known/oauth-protected-resource';

/** Which parties are trusted is nobody's business: `authorization_servers` is not told. */
const metadataBody = z
  .strictObject({
    resource: z.string(),
    resource_name: z.string(),
    resource_documentation: z.string(),
    bearer_methods_supported: z.array(z.literal('header')),
    authorization_details_types_supported: z.array(z.literal('mayfly')),
    dpop_signing_alg_values_supported: z.array(z.string()),
    dpop_bound_access_tokens_required: z
      .literal(false)
      .meta({ description: 'The key is named by the task, or by the token; then each call proves it.' }),
  })
  .meta({ id: 'ProtectedResource', description: 'RFC 9728 protected resource metadata.' });

/** RFC 9728 §3. The resource has no path. */
export function metadataUrl(publicUrl: string): string {
  return `${publicUrl}${PATH}`;
}

export const protectedResourcePage: Page = {
  method: 'get',
  path: PATH,
  name: 'readProtectedResource',
  tag: 'broker',
  summary: 'How to call this broker (RFC 9728)',
  body: noBody,
  answers: { 200: { says: 'The metadata.', schema: metadataBody } },
  refusals: [],
  show: ({ deps, response }) => {
    const { public_url: resource } = deps.config;
    const body: z.output<typeof metadataBody> = {
      resource,
      resource_name: 'Mayfly',
      resource_documentation: `${resource}/docs`,
      bearer_methods_supported: ['header'],
      authorization_details_types_supported: ['mayfly'],
      dpop_signing_alg_values_supported: [...PROOF_ALGORITHMS],
      dpop_bound_access_tokens_required: false,
    };
    writeAnswer(response, { status: 200, body });
  },
};
