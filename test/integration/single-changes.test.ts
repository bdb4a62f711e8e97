import { describe, expect, test } from 'vitest';
import { refuseChangedDeliveries, refuseChangedProofs, rightDelivery, rightProof } from '../support/changes/proofs.ts';
import { refuseChangedRequests, rightRequest } from '../support/changes/requests.ts';
import { refuseChangedTokens, rightToken } from '../support/changes/tokens.ts';
import {
  refuseChangedDelegations,
  refuseChangedEvents,
  refuseChangedOffers,
  rightDelegation,
  rightEvent,
  rightOffer,
} from '../support/changes/words.ts';
import { countOfCases, useRefusals } from '../support/refusals.ts';

useRefusals({ proofOfPossession: 'required' });

describe('a task request', () => {
  refuseChangedRequests();
});
describe('a workload token', () => {
  refuseChangedTokens();
});
describe('a proof of possession', () => {
  refuseChangedProofs();
});
describe('a key to seal to', () => {
  refuseChangedDeliveries();
});
describe('a delegation by the issuer', () => {
  refuseChangedDelegations();
});
describe('a delegation by the task’s key', () => {
  refuseChangedOffers();
});
describe('an event', () => {
  refuseChangedEvents();
});

test('they are many', () => {
  expect(countOfCases()).toBeGreaterThanOrEqual(150);
});

// Last: they leave something behind.
test.each([
  ['a request', rightRequest, 201],
  ['a token', rightToken, 200],
  ['a proof', rightProof, 200],
  ['a key to seal to', rightDelivery, 201],
  ['a delegation by the issuer', rightDelegation, 201],
  ['a delegation by the task’s key', rightOffer, 201],
  ['an event', rightEvent, 200],
] as const)('%s with nothing changed is taken', async (_what, send, status) => {
  const reply = await send();
  expect({ status: reply.status, code: reply.body['code'] }).toEqual({ status, code: undefined });
});
