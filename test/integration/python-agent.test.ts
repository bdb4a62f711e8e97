import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type House, startHouse } from '../support/house.ts';
import { findPython, runPythonAgent } from '../support/python-agent.ts';

const READ = 'ledger-db/read-invoices';
const python = findPython() ?? '';

describe.skipIf(python === '')('an agent in Python, by PyJWT', () => {
  let house: House;
  beforeAll(async () => {
    house = await startHouse({ proofOfPossession: 'required', env: { MAYFLY_DPOP_NONCE: 'required' } });
  });
  afterAll(() => house?.stop());

  test.each(['ES256', 'EdDSA', 'PS256', 'RS256'])('opens, mints and completes by proofs of %s', async (algorithm) => {
    const said = await runPythonAgent(python, algorithm, async (jkt) => ({
      url: house.url,
      token: await house.token(),
      request: await house.sign({ keyThumbprint: jkt }),
      entitlement: READ,
    }));
    expect(said).toEqual([
      { step: 'without a proof', status: 401, code: 'proof_missing' },
      { step: 'open', status: 201, code: null },
      { step: 'mint', status: 201, code: null, username: expect.stringMatching(/^mfy_/) },
      { step: 'complete', status: 200, code: null, state: 'completed' },
      { step: 'with another key', status: 404, code: 'not_found' },
    ]);
  });
});
