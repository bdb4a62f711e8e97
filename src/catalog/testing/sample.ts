import { z } from 'zod';
import type { FieldError } from '../../domain/errors.ts';
import { MayflyError } from '../../domain/errors.ts';
import { loadCatalog, type ProviderSchemas } from '../load.ts';
import type { Catalog } from '../types.ts';

/** A provider's schemas as small as they can be. */
export const sampleProviders: ProviderSchemas = new Map([
  [
    'sample',
    {
      type: 'sample',
      targetSchema: z.strictObject({
        host: z.string(),
        port: z.int().default(1234),
        password: z.string().optional(),
        options: z.record(z.string(), z.unknown()).optional(),
      }),
      entitlementSchema: z.strictObject({ template: z.string(), secret: z.string().optional() }),
      bindsParams: true,
    },
  ],
]);

/** A valid catalog in which each line is where the tests say. */
export const sampleFiles: Readonly<Record<string, string>> = {
  'trust.yaml': `task_issuers:
  - name: orchestrator
    issuer: https://orchestrator.example
    jwks: { url: https://orchestrator.example/jwks.json }
    algorithms: [ES256]
    purposes: [reconcile.invoices]
    workloads: ["cluster:system:serviceaccount:finance:recon"]
    max_task_seconds: 3600
workload_sources:
  - name: cluster
    kind: oidc
    issuer: https://cluster.example
    jwks: { url: https://cluster.example/jwks.json }
    algorithms: [RS256]
operators:
  - name: staff
    issuer: https://idp.example
    jwks: { url: https://idp.example/jwks.json }
    algorithms: [RS256, ES256]
    claim: groups
    roles: { Platform Team: [viewer, admin] }
`,
  'purposes.yaml': `- name: reconcile.invoices
  description: Match payments with invoices.
  phases: [plan, execute]
  max_life_seconds: 3600
`,
  'targets/ledger.yaml': `name: ledger
provider: sample
connection:
  host: db.example
  password: file:password
environment: production
owner: team-finance
sensitivity: confidential
labels: { team: finance }
`,
  'entitlements/ledger.yaml': `- name: ledger/read
  target: ledger
  sensitivity: confidential
  actions: [read]
  max_ttl_seconds: 900
  params: { tenant: { type: string, pattern: "[a-z]{1,40}" } }
  provider: { template: reader }
`,
  'policies/ledger.cedar': `@id("reads") @max_ttl("5m")
permit (principal is Mayfly::Task, action, resource == Mayfly::Entitlement::"ledger/read")
when { principal.purpose == "reconcile.invoices" };
`,
  'policies/tests/ledger.yaml': `- name: reconciling reads
  request: { entitlement: ledger/read, task: { purpose: reconcile.invoices } }
  expect: { decision: permit, policies: [reads], max_ttl: 5m }
`,
};

/** The sample with some files replaced, or left out where they are null. */
export function sampleWith(changes: Readonly<Record<string, string | null>>): Record<string, string> {
  const entries = Object.entries({ ...sampleFiles, ...changes });
  return Object.fromEntries(entries.flatMap(([path, text]) => (text === null ? [] : [[path, text]])));
}

/** The sample with one text replaced in one file. */
export function sampleEdited(path: string, from: string, to: string): Record<string, string> {
  const text = sampleFiles[path];
  if (text === undefined || !text.includes(from)) throw new Error(`the sample's ${path} has no ${from}`);
  return sampleWith({ [path]: text.replace(from, to) });
}

export function load(files: Readonly<Record<string, string>>, allowDev = false): Catalog {
  return loadCatalog(files, { providers: sampleProviders, allowDev });
}

/** The faults for which a catalog is refused; empty when it is not. */
function faultsOf(files: Readonly<Record<string, string>>, allowDev = false): readonly FieldError[] {
  try {
    load(files, allowDev);
    return [];
  } catch (error) {
    if (error instanceof MayflyError && error.code === 'catalog_invalid') return error.errors;
    throw error;
  }
}

/** The same as `place: message` lines. */
export function faultLines(files: Readonly<Record<string, string>>, allowDev = false): readonly string[] {
  return faultsOf(files, allowDev).map(({ path, message }) => `${path}: ${message}`);
}
