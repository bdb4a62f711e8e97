import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { AgentKey, type TaskBody } from '../../src/client/index.ts';
import { ask, type Reply } from '../support/ask.ts';
import {
  aboutTask,
  ENTITIES,
  evaluateAs,
  permitting,
  type Question,
  said,
  SCHEMA,
  schemaOf,
  TYPES,
  vector,
  vectorsThere,
} from '../support/authzen.ts';
import { Agent } from '../support/delegating.ts';
import { type House, startHouse } from '../support/house.ts';
import { operatorsOf } from '../support/operators.ts';

const PATH = '/access/v1/evaluation';
const ALICE = { type: 'user', id: 'alice@example.com' };

let house: House;
let key: AgentKey;
beforeAll(async () => {
  house = await startHouse();
  key = await AgentKey.make();
  const gateways = `
tool_gateways:
  - name: records
    workloads: [dev:records-gateway]
    proof_of_possession: none
    scope: { subjects: [user, task, workload], resources: [document, account], agents: [dev:agent-recon] }
  - name: keyed
    workloads: [dev:keyed-gateway]
    keys: [${key.thumbprint}]
    scope: { subjects: [task], resources: [document] }
`;
  await house.broker.apply({
    ...house.files,
    'trust.yaml': `${house.files['trust.yaml'] ?? ''}\n${gateways}`,
    [SCHEMA]: TYPES,
    'entities.yaml': ENTITIES,
    'policies/evaluating.cedar': [
      permitting('open', 'resource is document && resource has open && resource.open'),
      permitting('readers', 'principal is user && principal in group::"readers" && action == Action::"can_read"'),
    ].join('\n'),
  });
});
afterAll(() => house?.stop());

const open = async (workload: string, purpose: string): Promise<TaskBody> =>
  (await house.client(workload).openTask(await house.sign({ workload, purpose }))).task;
const recon = () => open('agent-recon', 'reconcile.invoices');
const byGateway = async (body: unknown, path = PATH): Promise<Reply> =>
  await evaluateAs(house, 'records-gateway', body, {}, path);
const aboutAlice = (more: Question = {}) => ({ ...aboutTask(''), subject: ALICE, ...more });
const PERMITTED = [200, true, undefined];
const DENIED = [200, false, 'denied_by_policy'];
const UNKNOWN = [200, false, 'not_found'];

describe('a tool gateway', () => {
  test('asks about the task of an agent, and its call is a use of that task', async () => {
    const { id } = await recon();
    expect(said(await byGateway(aboutTask(id)))).toEqual(PERMITTED);
    expect(said(await byGateway(aboutTask(id, { resource: { type: 'document', id: '2' } })))).toEqual(DENIED);
    const uses = await house.onStore(
      `SELECT agent, decision, payload->>'gateway' AS gateway FROM mayfly.audit_events
       WHERE task_id = $1 AND type = 'use.evaluated' ORDER BY ts, id`,
      [id.slice(5)],
    );
    expect(uses).toEqual([
      { agent: 'dev:agent-recon', decision: 'permit', gateway: 'records' },
      { agent: 'dev:agent-recon', decision: 'deny', gateway: 'records' },
    ]);
  });

  test('is told no of a task that has ended', async () => {
    const { id } = await recon();
    await house.client().cancel(id, { wait: 30 });
    expect(said(await byGateway(aboutTask(id)))).toEqual([200, false, 'task_ended']);
  });

  test('knows nothing beyond its scope', async () => {
    const foreign = await open('agent-support', 'answer.customer');
    const answers = await Promise.all([
      byGateway(aboutTask(foreign.id)),
      byGateway(aboutTask('task_018f0000-0000-7000-8000-000000000000')),
      byGateway(aboutTask('', { subject: { type: 'workload', id: 'dev:agent-support' } })),
      byGateway(aboutTask('', { subject: { type: 'group', id: 'readers' } })),
      byGateway(aboutAlice({ resource: { type: 'group', id: 'readers' } })),
    ]);
    expect(answers.map(said)).toEqual(answers.map(() => UNKNOWN));
    expect(answers.map(({ body }) => body)).toEqual(answers.map(() => answers[0]?.body));
    expect(said(await byGateway(aboutTask('', { subject: { type: 'workload', id: 'dev:agent-recon' } })))).toEqual(
      PERMITTED,
    );
  });

  test('has to prove its key, unless the catalog says that its token is enough', async () => {
    const { id } = await recon();
    const bare = await evaluateAs(house, 'keyed-gateway', aboutTask(id));
    expect([bare.status, bare.body['code']]).toEqual([401, 'proof_missing']);
    const stranger = await Agent.make(house, 'keyed-gateway');
    const wrong = await stranger.call('POST', PATH, aboutTask(id));
    expect([wrong.status, wrong.body['code']]).toEqual([401, 'proof_key_wrong']);
    const gateway = new Agent(house, 'keyed-gateway', key);
    expect(said(await gateway.call('POST', PATH, aboutTask(id)))).toEqual(PERMITTED);
  });

  test('that is killed is told no about anybody', async () => {
    const operators = operatorsOf(house);
    const { id } = await recon();
    const body = { scope: 'agent', id: 'dev:records-gateway', reason: 'the tests' };
    const raised = await operators.post('/v1/kill', body);
    expect(said(await byGateway(aboutTask(id)))).toEqual([200, false, 'killed']);
    expect(said(await byGateway(aboutAlice()))).toEqual([200, false, 'killed']);
    const token = await operators.token('operator');
    await ask(house.url, 'DELETE', `/v1/kill/${String(raised.body['id'])}`, { token });
    expect(said(await byGateway(aboutTask(id)))).toEqual(PERMITTED);
  });
});

describe('a scenario of users and records', () => {
  test('is served by a catalog alone: stored entities with their parents and attributes', async () => {
    expect(
      said(await byGateway(aboutAlice({ action: { name: 'can_read' }, resource: { type: 'document', id: '2' } }))),
    ).toEqual(PERMITTED);
    expect(
      said(await byGateway(aboutAlice({ action: { name: 'can_edit' }, resource: { type: 'document', id: '2' } }))),
    ).toEqual(DENIED);
    const bob = { type: 'user', id: 'bob@example.com', properties: { department: 'Sales', parents: ['readers'] } };
    expect(
      said(
        await byGateway(
          aboutAlice({ subject: bob, action: { name: 'can_read' }, resource: { type: 'document', id: '2' } }),
        ),
      ),
    ).toEqual(DENIED);
  });

  test('stands in the evidence, of no task', async () => {
    const reply = await byGateway(aboutAlice());
    const id = String(Object(reply.body['context'])['evaluation_id']).slice(4);
    const found = await house.onStore(
      `SELECT d.task_id, d.permitted, e.agent, e.subject FROM mayfly.decisions d JOIN mayfly.audit_events e ON e.decision_id = d.id WHERE d.id = $1`,
      [id],
    );
    expect(found).toEqual([
      { task_id: null, permitted: true, agent: 'dev:records-gateway', subject: 'user::"alice@example.com"' },
    ]);
  });

  test.skipIf(!vectorsThere).each([
    ['01-evaluation-request', [true]],
    ['05-evaluations-request-no-defaults', [true, true, true]],
    ['06-evaluations-request-default-subject-context', [true, true, true]],
    ['07-evaluations-request-default-overridden', [true, true, false]],
    ['08-evaluations-request-execute-all', [true, false, true]],
    ['10-evaluations-request-deny-on-first-deny', [true, false]],
    ['12-evaluations-request-permit-on-first-permit', [true]],
  ])('the specification’s %s is decided', async (name, expected) => {
    const request = vector(`requests/${name}.json`);
    const reply = await byGateway(request, 'evaluations' in request ? '/access/v1/evaluations' : PATH);
    const answers = (reply.body['evaluations'] ?? [reply.body]) as { decision: boolean }[];
    for (const answer of answers) schemaOf('response').parse(answer);
    expect(answers.map(({ decision }) => decision)).toEqual(expected);
  });
});
