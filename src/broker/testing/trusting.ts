import type { Purpose, TaskIssuer, Trust } from '../../catalog/types.ts';

const base = { dev: false, jwks: { url: 'https://keys.example' }, algorithms: ['ES256'] };

export const orchestrator: TaskIssuer = {
  ...{ ...base, name: 'orchestrator', issuer: 'https://orchestrator.example', maxTaskSeconds: 3_600 },
  ...{ purposes: ['reconcile.invoices'], workloads: ['dev:agent-recon'], autonomous: false, proofOfPossession: 'none' },
};

const reconciling: Purpose = { name: 'reconcile.invoices', description: '', phases: ['plan'], maxLifeSeconds: 3_600 };

/** What a catalog says where one issuer states one purpose for one workload. */
export const trusting: { readonly trust: Trust; readonly purposes: ReadonlyMap<string, Purpose> } = {
  trust: {
    taskIssuers: [orchestrator],
    tokenIssuers: [],
    workloadSources: [{ ...base, kind: 'oidc', name: 'dev', issuer: 'https://workloads.example' }],
    operators: [],
  },
  purposes: new Map([[reconciling.name, reconciling]]),
};
