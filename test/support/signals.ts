import { randomUUID } from 'node:crypto';
import { ask, type Reply } from './ask.ts';
import type { House } from './house.ts';

/** Of `signal_sources` in trust.yaml: one that may say everything, one beside it, and one that proves a key. */
export const sources = (thumbprint: string, more = ''): string => `
signal_sources:
  - { name: risk, workloads: ["dev:risk-engine"], proof_of_possession: none, max_age_seconds: 300,
      kinds: [workload_risk, incident, change_freeze, device, user] }
  - { name: desk, workloads: ["dev:desk"], proof_of_possession: none, max_age_seconds: 60, kinds: [workload_risk, incident] }
  - { name: keyed, workloads: ["dev:keyed-source"], keys: [${thumbprint}], max_age_seconds: 60, kinds: [incident] }
${more}`;

/** Each denies for one thing that signals say. */
export const FORBIDS = `
@id("no-high-risk") @reason("Its risk is too high.")
forbid (principal is Mayfly::Task, action, resource) when { ["high", "critical"].contains(principal.workload.risk) };
@id("no-incident") forbid (principal is Mayfly::Task, action, resource is Mayfly::Entitlement) when { context.incident };
@id("no-freeze") forbid (principal is Mayfly::Task, action, resource is Mayfly::Entitlement) when { context.change_freeze };
@id("no-device") forbid (principal is Mayfly::Task, action, resource is Mayfly::Entitlement) when { context.device == "not-compliant" };
@id("payments-by-known-devices") forbid (principal is Mayfly::Task, action, resource == Mayfly::Entitlement::"ledger-db/read-payments") when { context.device != "compliant" };
@id("no-user") forbid (principal is Mayfly::Task, action, resource is Mayfly::Entitlement) when { context.user == "disabled" };
@id("no-silence") forbid (principal is Mayfly::Task, action, resource is Mayfly::Entitlement) when { context.signals.stale };
`;

export const ISSUER = 'dev-orchestrator';

let last = 0;

/** Later than any that was made before, and not ahead of the clock by more than that takes. */
function later(): string {
  last = Math.max(Date.now(), last + 1);
  return new Date(last).toISOString();
}

/** A signal with an id of its own, of now. */
export function signal(kind: string, more: object = {}): Record<string, unknown> {
  return { kind, id: randomUUID(), occurred_at: later(), ...more };
}

export async function send(
  house: House,
  body: unknown,
  by = 'risk-engine',
  url = house.url,
  headers: Readonly<Record<string, string>> = {},
): Promise<Reply> {
  return await ask(url, 'POST', '/v1/signals', { token: await house.token(by), body, headers });
}
