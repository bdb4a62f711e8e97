import { z } from 'zod';
import { entitlementName, name, purposeName, seconds, uniqueList } from './names.ts';
import { claim } from './source-schema.ts';
import { type IssuerWire, statedBy, subjectMappings, workload } from './trust-schema.ts';
import type { FromToken, TokenIssuer, WorkloadSource } from './types.ts';
import type { Item } from './yaml.ts';

const fromClaim = z.strictObject({ claim });
const paramValue = z.union([z.string().max(1024), z.int(), z.boolean()]);

/** The wire form of a task issuer of `kind: token`: how the claims of a source's tokens state a task. */
export const tokenIssuerSchema = z.strictObject({
  kind: z.literal('token'),
  name,
  source: name,
  ...statedBy,
  purpose: z.union([purposeName, fromClaim], 'must be a purpose, or `{ claim: … }`'),
  subject: claim.default('sub'),
  workload: z
    .union(
      [workload, z.strictObject({ source: name, claim })],
      'must be `<source>:<subject>`, or `{ source: …, claim: … }`',
    )
    .optional(),
  entitlements: uniqueList(entitlementName).refine((list) => list.length > 0 && list.length <= 64, 'must name 1 to 64'),
  params: z
    .record(z.string().regex(/^[a-z][a-z0-9_-]{0,62}$/i, 'must be a plain name'), z.union([paramValue, fromClaim]))
    .default({}),
  max_ttl_seconds: seconds(86_400).optional(),
  not_after: z.union(
    [z.literal('token'), z.strictObject({ seconds: seconds(86_400 * 7) })],
    'must be `token`, or `{ seconds: … }`',
  ),
  external_id: uniqueList(claim).default([]),
});

export type TokenIssuerWire = z.infer<typeof tokenIssuerSchema>;

/** For what must be unique: its name, and the source, which states tasks in one way only. */
export function asParty(item: Item<TokenIssuerWire>): Item<IssuerWire> {
  const { name: own, source } = item.value;
  return {
    ...item,
    value: { name: own, dev: false, issuer: `the tokens of ${source}`, jwks: {}, algorithms: [] },
    fault: ([first, ...rest], message) => item.fault([first === 'issuer' ? 'source' : (first ?? ''), ...rest], message),
  };
}

/** @param source Whose tokens they are, as the catalog has it. */
export function tokenIssuer(wire: TokenIssuerWire, source: WorkloadSource): TokenIssuer {
  const { dev, issuer, jwks, algorithms } = source;
  return {
    ...{ name: wire.name, dev, issuer, jwks, algorithms },
    purposes: wire.purposes,
    workloads: wire.workloads,
    maxTaskSeconds: wire.max_task_seconds,
    autonomous: wire.autonomous,
    proofOfPossession: wire.proof_of_possession,
    ...subjectMappings(wire),
    statement: {
      source: wire.source,
      purpose: fromToken<string>(wire.purpose),
      subjectClaim: wire.subject,
      workload: workloadOf(wire),
      entitlements: wire.entitlements,
      params: Object.fromEntries(Object.entries(wire.params).map(([key, value]) => [key, fromToken(value)])),
      maxTtlSeconds: wire.max_ttl_seconds ?? null,
      notAfterSeconds: wire.not_after === 'token' ? null : wire.not_after.seconds,
      externalIdClaims: wire.external_id,
    },
  };
}

function fromToken<T extends string | number | boolean>(value: T | { readonly claim: string }): FromToken<T> {
  return typeof value === 'object' ? value : { value };
}

function workloadOf({ workload: named }: TokenIssuerWire): TokenIssuer['statement']['workload'] {
  if (typeof named !== 'string') return named ?? null;
  const colon = named.indexOf(':');
  return { source: named.slice(0, colon), subject: named.slice(colon + 1) };
}
