import { z } from 'zod';
import { algorithmList, algorithms, keySet, keysFrom, spiffeBundle } from './key-set.ts';
import { name, text } from './names.ts';

/** The wire form of `workload_sources` in `trust.yaml`: one strict shape for each kind. */

const base = { name, dev: z.boolean().default(false) };
const issuer = z.string().max(2000);
const jwks = keysFrom(keySet);
export const claim = z.string().regex(/^[A-Za-z0-9_:/.-]{1,200}$/, 'must be the name of a claim');

const oidc = z.strictObject({
  ...base,
  kind: z.literal('oidc'),
  issuer,
  jwks,
  algorithms: algorithmList(algorithms),
  subject: claim.default('sub'),
  require: z.record(claim, z.union([text(500), z.int(), z.boolean()])).default({}),
  token_type: z.literal('at+jwt', 'must be `at+jwt`, or absent').optional(),
});

const spiffe = {
  trust_domain: z.string().regex(/^[a-z0-9._-]{1,255}$/, 'must be a trust domain: `prod.example`, without `spiffe://`'),
  bundle: keysFrom(spiffeBundle),
};

const spiffeX509 = z.strictObject({ ...base, kind: z.literal('spiffe-x509'), ...spiffe });

const spiffeJwt = z.strictObject({
  ...base,
  kind: z.literal('spiffe-jwt'),
  ...spiffe,
  // JWT-SVID §2.1: no EdDSA.
  algorithms: algorithmList(['ES256', 'ES384', 'ES512', 'PS256', 'PS384', 'PS512', 'RS256', 'RS384', 'RS512']),
});

export const secretFile = z.string().regex(/^file:[A-Za-z0-9_./-]{1,300}$/, 'must be a reference: `file:path`');

const kubernetes = z.strictObject({
  ...base,
  kind: z.literal('kubernetes'),
  issuer,
  jwks,
  algorithms: algorithmList(algorithms),
  token_review: z.strictObject({ url: z.string().max(2000), ca: secretFile, credential: secretFile }).optional(),
});

/** Ids are text: a number of YAML loses digits beyond 2^53. */
const id = z.string('must be digits in quotes: "1234"').regex(/^[0-9]{1,20}$/, 'must be digits in quotes: "1234"');

const githubActions = z.strictObject({
  ...base,
  kind: z.literal('github-actions'),
  jwks: jwks.default({ url: 'https://token.actions.githubusercontent.com/.well-known/jwks' }),
  repositories: z
    .array(
      z.strictObject({
        repository_owner_id: id,
        repository_id: id,
        job_workflow_ref: text(1000).optional(),
        environment: text(1000).optional(),
        ref: text(1000).optional(),
        as: name.optional(),
      }),
    )
    .min(1, 'must name at least one repository'),
});

const kinds = [oidc, spiffeJwt, spiffeX509, kubernetes, githubActions] as const;

export const workloadSourceSchema = z.discriminatedUnion('kind', kinds, {
  error: `must be one of ${kinds.map(({ shape }) => shape.kind.value).join(', ')}`,
});

export type WorkloadSourceWire = z.infer<typeof workloadSourceSchema>;
