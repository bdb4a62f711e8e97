import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { AgentKey, type TaskBody } from '../../src/client/index.ts';
import { ask, type Reply } from '../support/ask.ts';
import { type House, startHouse } from '../support/house.ts';
import { findKeycloak, type Keycloak, startKeycloak } from '../support/keycloak.ts';

/** Whom a broker believes that trusts a realm of Keycloak: its clients, by the access tokens that they get for themselves. */

const READ = 'ledger-db/read-invoices';
const home = findKeycloak();

describe.skipIf(home === undefined)('a realm of Keycloak', () => {
  let house: House;
  let keycloak: Keycloak;

  beforeAll(async () => {
    [house, keycloak] = await Promise.all([startHouse(), startKeycloak(home ?? '')]);
    const audience = house.url;
    const claims = { team: 'finance' };
    await keycloak.makeClient({ id: 'recon', audience, claims });
    await keycloak.makeClient({ id: 'bound', audience, claims, dpop: true });
    await keycloak.makeClient({ id: 'closing', audience, claims: { ...claims, job: 'answer.customer' } });
    await keycloak.makeClient({ id: 'elsewhere', audience: 'https://other.example', claims });
    await keycloak.makeClient({ id: 'sales', audience, claims: { team: 'sales' } });
    await trust();
  }, 300_000);
  afterAll(async () => {
    await keycloak?.stop();
    await house?.stop();
  });

  async function trust(): Promise<void> {
    const statements = `  - name: jobs
    kind: token
    source: keycloak
    purposes: [answer.customer]
    workloads: ["keycloak:closing"]
    max_task_seconds: 600
    purpose: { claim: job }
    subject: client_id
    autonomous: true
    entitlements: [${READ}]
    params: { team: { claim: team } }
    not_after: token
    proof_of_possession: none
`;
    const source = `workload_sources:
  - name: keycloak
    dev: true
    kind: oidc
    issuer: ${keycloak.issuer}
    jwks: { url: ${keycloak.jwksUrl} }
    algorithms: [RS256]
    subject: client_id
    token_type: at+jwt
    require: { team: finance }
`;
    await house.broker.apply({
      ...house.files,
      'trust.yaml': (house.files['trust.yaml'] ?? '')
        .replace('workloads: [', 'workloads: ["keycloak:recon", "keycloak:bound", ')
        .replace('workload_sources:\n', `${statements}${source}`),
    });
  }

  const outcome = ({ status, body }: Reply) => [status, body['code']];
  /** As whom the caller is believed, or why not. */
  const believed = async (token: string) => {
    const { body } = await ask(house.url, 'GET', '/v1/whoami', { token });
    return body['workload'] ?? body['code'];
  };

  describe('gives its client a token', () => {
    test('that opens a task of that client, gets a credential and completes', async () => {
      const token = await keycloak.clientToken('recon');
      const client = house.client('recon', house.url, undefined, async () => token);
      const { task } = await client.openTask(await house.sign({ workload: 'recon' }));
      expect(task.workload).toBe('keycloak:recon');
      await client.issue(task.id, { entitlement: READ });
      expect((await client.complete(task.id, { wait: 30 })).task).toMatchObject({ state: 'completed' });
    });

    test('that counts by its audience and its claims alone', async () => {
      expect(await believed(await keycloak.clientToken('elsewhere'))).toBe('workload_token_audience_wrong');
      expect(await believed(await keycloak.clientToken('sales'))).toBe('workload_token_invalid');
    });

    test('that is itself the statement, by its claims', async () => {
      const token = await keycloak.clientToken('closing');
      const states = (request: string) => ask(house.url, 'POST', '/v1/tasks', { token: request, body: { request } });
      const opened = await states(token);
      expect(opened).toMatchObject({
        status: 201,
        body: { task: { purpose: 'answer.customer', subject: 'closing', workload: 'keycloak:closing' } },
      });
      expect((opened.body['task'] as TaskBody).id).toBe(Object((await states(token)).body['task']).id);
      // Of a client of whom the catalog says nothing of the kind.
      expect(outcome(await states(await keycloak.clientToken('recon')))).toEqual([400, 'request_claims_invalid']);
    });

    test('by a new key at once, and by the one before', async () => {
      const before = await keycloak.clientToken('recon');
      expect(await believed(before)).toBe('keycloak:recon');
      await keycloak.rotate();
      expect(await believed(await keycloak.clientToken('recon'))).toBe('keycloak:recon');
      expect(await believed(before)).toBe('keycloak:recon');
    });
  });

  describe('binds a token to the key of its client', () => {
    const boundToken = async (key: AgentKey) =>
      await keycloak.clientToken('bound', await key.prove('POST', keycloak.tokenUrl, undefined));
    const whoAmI = async (token: string, proof?: string, scheme = 'DPoP') =>
      await ask(house.url, 'GET', '/v1/whoami', {
        headers: { authorization: `${scheme} ${token}`, ...(proof === undefined ? {} : { dpop: proof }) },
      });

    test('that opens a task of that key, and gets a credential', async () => {
      const key = await AgentKey.make();
      const client = house.client('bound', house.url, key, () => boundToken(key));
      const { task } = await client.openTask(await house.sign({ workload: 'bound', keyThumbprint: key.thumbprint }));
      await client.issue(task.id, { entitlement: READ });
      expect((await client.complete(task.id, { wait: 30 })).task).toMatchObject({ state: 'completed' });
    });

    test('that is of no use without it: no proof, another’s, the same again, or as a bearer token', async () => {
      const [key, stranger] = [await AgentKey.make(), await AgentKey.make()];
      const token = await boundToken(key);
      const prove = (by: AgentKey) => by.prove('GET', `${house.url}/v1/whoami`, token);
      const proof = await prove(key);
      expect((await whoAmI(token, proof)).body).toMatchObject({ key_thumbprint: key.thumbprint });
      expect(outcome(await whoAmI(token, proof))).toEqual([401, 'proof_used']);
      expect(outcome(await whoAmI(token))).toEqual([401, 'proof_missing']);
      expect(outcome(await whoAmI(token, await prove(stranger)))).toEqual([401, 'proof_key_wrong']);
      expect(outcome(await whoAmI(token, await prove(key), 'Bearer'))).toEqual([401, 'workload_token_bound']);
    });
  });
});
