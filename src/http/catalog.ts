import { applyCatalog } from './apply-catalog.ts';
import { catalogBody, viewOfCatalog } from './catalog-bodies.ts';
import { noHeaders, noQuery } from './requests.ts';
import { noBody, type Route, route } from './route.ts';
import {
  checkedBody,
  MOST_CATALOG_BYTES,
  proposalBody,
  viewOfChecked,
  viewOfWhatIf,
  whatIfBody,
} from './what-if-bodies.ts';

const readCatalog = route({
  method: 'get',
  path: '/v1/catalog',
  name: 'readCatalog',
  tag: 'operating',
  summary: 'The active revision of the catalog',
  description: 'With how many living grants are yet to be decided by it. Role: viewer, of any scope.',
  query: noQuery,
  headers: noHeaders,
  body: noBody,
  answers: { 200: { says: 'The revision.', schema: catalogBody } },
  refusals: ['operator_only'],
  handle: async (call) => {
    return { status: 200, body: viewOfCatalog(await call.useCases.readCatalog(call.broker, call.caller)) };
  },
});

const checkCatalog = route({
  method: 'post',
  path: '/v1/catalog/check',
  name: 'checkCatalog',
  tag: 'operating',
  summary: 'Check a catalog whole',
  description:
    'Schema, names, policies, policy tests. Reads neither store nor targets, and no secret. Role: operator, of any scope.',
  query: noQuery,
  headers: noHeaders,
  body: { schema: proposalBody, take: 'always', mostBytes: MOST_CATALOG_BYTES },
  answers: { 200: { says: 'What is wrong with it, if anything.', schema: checkedBody } },
  refusals: ['operator_only', 'comparison_running'],
  handle: async (call) => {
    const checked = await call.useCases.checkProposal(call.broker, call.caller, call.body.files);
    return { status: 200, body: viewOfChecked(checked) };
  },
});

const diffCatalog = route({
  method: 'post',
  path: '/v1/catalog/diff',
  name: 'diffCatalog',
  tag: 'operating',
  summary: 'What a catalog would change',
  description:
    'Its differences from the one in force; the living grants that would end; and the decisions of the last day, decided again from their inputs. Nothing is changed, and no secret read. One at a time for each replica. Role: operator, one that holds everywhere.',
  query: noQuery,
  headers: noHeaders,
  body: { schema: proposalBody, take: 'always', mostBytes: MOST_CATALOG_BYTES },
  answers: { 200: { says: 'What would change.', schema: whatIfBody } },
  refusals: ['operator_only', 'catalog_invalid', 'comparison_running'],
  handle: async (call) => {
    const seen = await call.useCases.diffProposal(call.broker, call.caller, call.body.files, call.context);
    return { status: 200, body: viewOfWhatIf(seen) };
  },
});

export const catalogRoutes: readonly Route[] = [readCatalog, checkCatalog, diffCatalog, applyCatalog];
