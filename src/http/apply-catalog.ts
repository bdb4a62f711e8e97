import { z } from 'zod';
import { answerOfAwaiting, awaitingAnswer } from './awaiting.ts';
import { catalogBody, viewOfCatalog } from './catalog-bodies.ts';
import { reason } from './queue-bodies.ts';
import { noHeaders, noQuery } from './requests.ts';
import { type Route, route } from './route.ts';
import { catalogFiles, MOST_CATALOG_BYTES } from './what-if-bodies.ts';

const commit = z.string().regex(/^[\x21-\x7e]{1,100}$/, 'must be 1 to 100 visible ASCII characters');

const applyBody = z
  .strictObject({
    files: catalogFiles,
    enforce: z.enum(['revoke', 'report']).default('revoke').meta({
      description: 'Whether living grants that it does not permit end, or it is only told.',
    }),
    expect_revoked: z.int().min(0).max(999_999_999).optional().meta({
      description: 'So many living grants end by it, and are meant to.',
    }),
    commit: commit.optional().meta({ description: 'Where the files come from, for the evidence.' }),
    signature: z.string().min(1).max(16_384).optional().meta({
      description: 'A compact JWS of `mayfly catalog sign`: of whoever vouches for it.',
    }),
    allow_rollback: reason.optional().meta({ description: 'Why it may be older than the one in force.' }),
  })
  .meta({ id: 'ApplyCatalog' });

export const applyCatalog: Route = route({
  method: 'post',
  path: '/v1/catalog/apply',
  name: 'applyCatalog',
  tag: 'operating',
  summary: 'Put a catalog in force',
  description:
    'Whole or not at all, with the guards of `mayfly catalog apply`. Where the one in force wants four eyes, the first call is only noted, and the very same call of another operator applies it. Role: admin, one that holds everywhere.',
  query: noQuery,
  headers: noHeaders,
  body: { schema: applyBody, take: 'always', mostBytes: MOST_CATALOG_BYTES },
  answers: {
    201: { says: 'It is in force.', schema: catalogBody },
    200: { says: 'Exactly this is in force already.', schema: catalogBody },
    202: awaitingAnswer,
  },
  refusals: [
    'operator_only',
    'catalog_invalid',
    'catalog_changed',
    'catalog_rollback',
    'catalog_signature_missing',
    'catalog_signature_invalid',
    'catalog_signature_mismatch',
    'catalog_signature_old',
    'too_much_drift',
    'second_person_needed',
    'comparison_running',
  ],
  handle: async (call) => {
    const { files, enforce, expect_revoked, commit: from, signature, allow_rollback } = call.body;
    const replaced = await call.useCases.replaceCatalog(
      call.broker,
      call.caller,
      files,
      {
        ...{ enforce, expectRevoked: expect_revoked ?? null, commit: from ?? null },
        ...{ signature: signature ?? null, allowRollback: allow_rollback ?? null },
      },
      call.context,
    );
    if (replaced.kind === 'awaits') return answerOfAwaiting(replaced.awaits);
    const status = replaced.kind === 'applied' ? 201 : 200;
    return { status, body: viewOfCatalog(await call.useCases.readCatalog(call.broker, call.caller)) };
  },
});
