import type { PolicySet } from '../../catalog/types.ts';
import { readPolicyFile } from '../policy-file.ts';
import { quiet } from '../signals.ts';
import type { DecisionRequest } from '../types.ts';

/** A policy set from one text, with its annotations read. Throws on what the reader refuses. */
export function policySet(text: string, schema = '', entities: PolicySet['entities'] = []): PolicySet {
  const { policies, faults } = readPolicyFile('policies/sample.cedar', text);
  if (faults.length > 0) throw new Error(faults.map(({ line, message }) => `${line}: ${message}`).join('\n'));
  return { schema, policies, entities };
}

/** DESIGN's own example of a policy. */
export const designExample = `@id("reconcile-reads-invoices") @max_ttl("300s")
permit (principal is Mayfly::Task, action in [Mayfly::Action::"issue", Mayfly::Action::"renew", Mayfly::Action::"retain"],
        resource == Mayfly::Entitlement::"ledger-db/read-invoices")
when { principal.purpose == "reconcile.invoices" && principal.phase != "closing" && context.tree.sensitive_sinks == 0 };
`;

/** A request that the design's example permits. */
export const sampleRequest: DecisionRequest = {
  action: 'issue',
  now: new Date('2026-01-05T10:00:00Z'),
  task: {
    id: '01890000-0000-7000-8000-000000000001',
    purpose: 'reconcile.invoices',
    phase: 'execute',
    issuer: 'orchestrator',
    subject: 'user:ada',
    workload: { source: 'dev', subject: 'agent-recon' },
    instance: null,
    proofOfPossession: true,
    depth: 0,
    createdAt: new Date('2026-01-05T09:59:00Z'),
    notAfter: new Date('2026-01-05T11:00:00Z'),
    params: { tenant: 'acme', limit: 3, dry: true },
  },
  entitlement: {
    name: 'ledger-db/read-invoices',
    target: 'ledger-db',
    sensitivity: 'confidential',
    actions: ['read'],
    dataClasses: ['invoices'],
    sink: false,
    maxTtlSeconds: 900,
    params: {},
    provider: { template: 'mayfly_t_read_invoices' },
    onOwnedObjects: 'drop',
    sealedDelivery: 'optional',
  },
  target: {
    name: 'ledger-db',
    provider: 'postgres',
    connection: { host: 'db.example', password: 'file:password' },
    environment: 'production',
    owner: 'team-finance',
    sensitivity: 'confidential',
    labels: { team: 'finance' },
  },
  ttlSeconds: 600,
  guarantee: 'immediate',
  signals: quiet,
  history: {
    own: { liveGrants: 1, grants: 2, grantsOfThis: 1, uses: { asked: 4, permitted: 3 } },
    tree: {
      ...{ liveGrants: 2, grants: 3, sensitiveSinks: 0, heldSeconds: 150 },
      ...{ grantsOfThis: 2, uses: { asked: 6, permitted: 5 } },
      ...{
        held: ['ledger-db/read-invoices', 'crm/read-names'],
        dataClasses: ['invoices'],
        touched: ['crm', 'ledger-db'],
      },
    },
  },
};
