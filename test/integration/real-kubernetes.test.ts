import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { z } from 'zod';
import type { TaskBody } from '../../src/client/index.ts';
import { ask, type Reply } from '../support/ask.ts';
import { findGoServer } from '../support/go-server.ts';
import { type House, startHouse } from '../support/house.ts';
import { type Cluster, kubernetesSources, startKubernetes } from '../support/kubernetes.ts';

/** Whom a broker believes that trusts a Kubernetes cluster: by the keys that its API server publishes, and by asking it. */

const READ = 'ledger-db/read-invoices';
const RECON = { namespace: 'finance', name: 'recon' };
const OTHER = { namespace: 'finance', name: 'other' };
const BROKER = { namespace: 'mayfly', name: 'broker' };
const SUBJECT = 'system:serviceaccount:finance:recon';
/** A positive answer is kept for ten seconds, by the API server and by the broker. */
const KEPT = { timeout: 60_000, interval: 500 };

const binaries = await findGoServer(kubernetesSources);

describe.skipIf(binaries === undefined)('a Kubernetes cluster', () => {
  let cluster: Cluster;
  let house: House;
  let pods = 0;

  beforeAll(async () => {
    cluster = await startKubernetes(binaries ?? '');
    // Another authority for HTTPS is believed by a process from its start, or never.
    house = await startHouse({ inProcess: false, env: { NODE_EXTRA_CA_CERTS: cluster.caFile } });
    for (const { namespace, name } of [RECON, OTHER, BROKER]) await cluster.serviceAccount(namespace, name);
    await publishKeys();
    await mayReview(BROKER);
    mkdirSync(join(house.secretsDir, '_sources', 'cluster'), { recursive: true });
    secret('ca.crt', cluster.caPem);
    secret('token', await cluster.token(BROKER));
    await trust({ review: true });
  });
  afterAll(async () => {
    await house?.stop();
    await cluster?.stop();
  });

  const secret = (name: string, text: string) =>
    writeFileSync(join(house.secretsDir, '_sources', 'cluster', name), text, { mode: 0o600 });

  /** As clusters do whose issuer is reachable: to read its keys nobody needs to be known. */
  async function publishKeys(): Promise<void> {
    await cluster.call('POST', '/apis/rbac.authorization.k8s.io/v1/clusterrolebindings', {
      metadata: { name: 'keys-for-all' },
      roleRef: role('system:service-account-issuer-discovery'),
      subjects: [{ kind: 'Group', name: 'system:unauthenticated', apiGroup: 'rbac.authorization.k8s.io' }],
    });
  }

  /** What docs/identity.md says that the broker's credential needs, and nothing else. */
  async function mayReview(account: typeof BROKER): Promise<void> {
    const rule = { apiGroups: ['authentication.k8s.io'], resources: ['tokenreviews'], verbs: ['create'] };
    const metadata = { name: 'token-reviews' };
    await cluster.call('POST', '/apis/rbac.authorization.k8s.io/v1/clusterroles', { metadata, rules: [rule] });
    await cluster.call('POST', '/apis/rbac.authorization.k8s.io/v1/clusterrolebindings', {
      metadata,
      roleRef: role('token-reviews'),
      subjects: [{ kind: 'ServiceAccount', ...account }],
    });
  }

  function role(name: string): object {
    return { apiGroup: 'rbac.authorization.k8s.io', kind: 'ClusterRole', name };
  }

  /** With its keys where the cluster itself says that they are. */
  async function trust({ review }: { readonly review: boolean }): Promise<void> {
    const discovery = z.object({ issuer: z.string(), jwks_uri: z.string() });
    const { issuer, jwks_uri } = discovery.parse(await cluster.call('GET', '/.well-known/openid-configuration'));
    const asks = review ? `token_review: { url: "${cluster.url}", ca: "file:ca.crt", credential: "file:token" },` : '';
    const source = `{ name: cluster, kind: kubernetes, issuer: "${issuer}", jwks: { url: "${jwks_uri}" }, ${asks} algorithms: [RS256] }`;
    await house.broker.apply({
      ...house.files,
      'trust.yaml': (house.files['trust.yaml'] ?? '')
        .replace('workloads: [', `workloads: ["cluster:${SUBJECT}", `)
        .replace('workload_sources:\n', `workload_sources:\n  - ${source}\n`),
    });
  }

  /** The token of a new pod. */
  async function podToken(account = RECON): Promise<{ readonly pod: string; readonly token: string }> {
    const pod = `${account.name}-${++pods}`;
    await cluster.pod(account.namespace, pod, account.name);
    return { pod, token: await cluster.token(account, house.url, pod) };
  }

  const outcome = ({ status, body }: Reply) => [status, body['code']];
  /** As whom the caller is believed, or why not. */
  const believed = async (token: string) => {
    const { body } = await ask(house.url, 'GET', '/v1/whoami', { token });
    return body['workload'] ?? body['code'];
  };
  /** Once the API server has noticed, and nobody keeps an older answer. */
  const comesOut = (token: string, as: string) => vi.waitFor(async () => expect(await believed(token)).toBe(as), KEPT);
  const open = async (token: string) =>
    await ask(house.url, 'POST', '/v1/tasks', { token, body: { request: await house.sign({ workload: SUBJECT }) } });
  const pathOf = (opened: Reply) => `/v1/tasks/${(opened.body['task'] as TaskBody).id}`;

  describe('projects a token into a pod', () => {
    test('that opens a task of its service account, gets a credential and completes', async () => {
      const { token } = await podToken();
      const opened = await open(token);
      expect(outcome(opened)).toEqual([201, undefined]);
      const grant = { token, body: { entitlement: READ } };
      expect((await ask(house.url, 'POST', `${pathOf(opened)}/grants`, grant)).status).toBe(201);
      const { body } = await ask(house.url, 'POST', `${pathOf(opened)}/complete?wait=30`, { token, body: {} });
      expect(body['task']).toMatchObject({ state: 'completed', workload: `cluster:${SUBJECT}` });
    });

    test('that is that pod alone: another of the same service account is another owner', async () => {
      const [{ pod, token }, { token: another }] = [await podToken(), await podToken()];
      const { metadata } = await cluster.call('GET', `/api/v1/namespaces/finance/pods/${pod}`);
      const { body } = await ask(house.url, 'GET', '/v1/whoami', { token });
      expect(body['instance']).toBe(Object(metadata).uid);
      const task = pathOf(await open(token));
      expect(outcome(await ask(house.url, 'GET', task, { token: another }))).toEqual([404, 'not_found']);
      const grant = { token: another, body: { entitlement: READ } };
      expect(outcome(await ask(house.url, 'POST', `${task}/grants`, grant))).toEqual([404, 'not_found']);
      // Its next token is the same pod's.
      expect((await ask(house.url, 'GET', task, { token: await cluster.token(RECON, house.url, pod) })).status).toBe(
        200,
      );
    });

    test('that is no other service account', async () => {
      const { token } = await podToken(OTHER);
      expect(outcome(await open(token))).toEqual([403, 'workload_not_named']);
    });

    test('for another audience, or for the cluster itself: neither counts', async () => {
      const { pod } = await podToken();
      for (const audience of ['https://other.example', undefined])
        expect(await believed(await cluster.token(RECON, audience, pod))).toBe('workload_token_audience_wrong');
    });

    test('and one that is bound to no pod is nobody', async () => {
      expect(await believed(await cluster.token(RECON, house.url))).toBe('workload_token_invalid');
    });
  });

  describe('is asked whether a token still holds', () => {
    test('a deleted pod’s does not, though by its keys alone nobody could tell', async () => {
      const { pod, token } = await podToken();
      const { token: another } = await podToken();
      const task = pathOf(await open(token));
      await cluster.remove('finance', 'pods', pod);
      await comesOut(token, 'workload_token_invalid');
      expect(outcome(await ask(house.url, 'GET', task, { token }))).toEqual([401, 'workload_token_invalid']);
      expect(await believed(another)).toBe(`cluster:${SUBJECT}`);
      await trust({ review: false });
      expect(await believed(token)).toBe(`cluster:${SUBJECT}`);
      await trust({ review: true });
      expect(await believed(token)).toBe('workload_token_invalid');
    });

    test('nor does that of a pod whose name another has now', async () => {
      const { pod, token } = await podToken();
      await cluster.remove('finance', 'pods', pod);
      await cluster.pod('finance', pod, RECON.name);
      await comesOut(await cluster.token(RECON, house.url, pod), `cluster:${SUBJECT}`);
      expect(await believed(token)).toBe('workload_token_invalid');
    });

    test('nor one of a service account that was made anew', async () => {
      const { token } = await podToken();
      await cluster.remove('finance', 'serviceaccounts', RECON.name);
      await comesOut(token, 'workload_token_invalid');
      await cluster.serviceAccount('finance', RECON.name);
      await comesOut((await podToken()).token, `cluster:${SUBJECT}`);
      expect(await believed(token)).toBe('workload_token_invalid');
    });

    test('and nobody is let in while it may not be asked, or can not', async () => {
      const { token } = await podToken();
      secret('token', await cluster.token(OTHER));
      expect(await believed(token)).toBe('keys_unavailable');
      secret('token', await cluster.token(BROKER));
      expect(await believed(token)).toBe(`cluster:${SUBJECT}`);
      const { token: later } = await podToken();
      await cluster.stop();
      expect(await believed(later)).toBe('keys_unavailable');
    });
  });
});
