import { z } from 'zod';
import { type Catalog, sensitivities, type TargetDefinition } from '../catalog/types.ts';
import { signalValues } from '../domain/signal.ts';
import { ttlSeconds } from './annotations.ts';
import { UNKNOWN } from './signals.ts';
import type { DecisionRequest, History, PolicyDecision, PolicyEngine, SignalFacts } from './types.ts';

const count = z.int().min(0).max(1_000_000);
const text = z.string().min(1).max(1000);

/** As a task is assumed: only its purpose is needed. */
export const assumedTaskSchema = z.strictObject({
  purpose: text,
  phase: text.optional(),
  issuer: text.optional(),
  workload: text.optional(),
  subject: text.default('user:example'),
  instance: text.optional(),
  proof_of_possession: z.boolean().default(true),
  depth: count.default(0),
  params: z.record(z.string(), z.union([z.string(), z.number(), z.boolean()])).default({}),
});

const assumedCounts = {
  ...{ live_grants: count.default(0), grants: count.default(0), grants_of_this: count.default(0) },
  ...{ evaluations: count.default(0), evaluations_permitted: count.default(0) },
};
export const assumedOwn = z.strictObject(assumedCounts).prefault({});
export const assumedTree = z
  .strictObject({
    ...assumedCounts,
    sensitive_sinks: count.default(0),
    held: z.array(text).default([]),
    touched: z.array(text).default([]),
    held_minutes: count.default(0),
  })
  .prefault({});
/** As signals are assumed: nobody says anything, and nobody is stale. */
export const assumedSignals = z
  .strictObject({
    risk: z.enum([...signalValues.workload_risk, UNKNOWN]).default(UNKNOWN),
    device: z.enum([...signalValues.device, UNKNOWN]).default(UNKNOWN),
    user: z.enum([...signalValues.user, UNKNOWN]).default(UNKNOWN),
    incident: z.boolean().default(false),
    change_freeze: z.boolean().default(false),
    /** Names of stale sources. */
    stale: z.array(text).default([]),
  })
  .prefault({});
export const assumedNow = z.iso
  .datetime({ offset: true, error: 'must be a time like 2026-01-05T10:00:00Z' })
  .default('2026-01-05T10:00:00Z');

export const guarantees = ['immediate', 'propagating', 'expiry-only', 'irrevocable'] as const;

export const expectedAnswer = z.strictObject({
  decision: z.enum(['permit', 'deny'], 'must be permit or deny'),
  policies: z.array(text).optional(),
  reasons: z.array(text).optional(),
  max_ttl: z
    .string()
    .refine((value) => ttlSeconds(value) !== undefined, 'must be like "300s", "5m" or "1h", at most a day')
    .optional(),
  sealed_delivery: z.boolean().optional(),
  per_call: z.boolean().optional(),
  approval: z.array(text).optional(),
});

/**
 * One policy test, as it stands in `policies/tests/*.yaml`. Only purpose and entitlement are needed: the rest is
 * the plainest case that the catalog allows (its first issuer for that purpose, that issuer's first workload, the
 * purpose's first phase, the entitlement's own TTL cap, nothing else live).
 */
export const policyTestSchema = z.strictObject({
  name: text,
  request: z.strictObject({
    action: z.enum(['issue', 'renew', 'retain'], 'must be issue, renew or retain').default('issue'),
    entitlement: text,
    task: assumedTaskSchema,
    ttl_seconds: z.int().min(1).max(86_400).optional(),
    guarantee: z.enum(guarantees, `must be one of ${guarantees.join(', ')}`).default('immediate'),
    own: assumedOwn,
    tree: assumedTree,
    signals: assumedSignals,
    now: assumedNow,
    // As if the target were another: what a policy says of production is testable before there is one.
    target: z
      .strictObject({
        environment: text.optional(),
        owner: text.optional(),
        sensitivity: z.enum(sensitivities, `must be one of ${sensitivities.join(', ')}`).optional(),
        labels: z.record(z.string(), z.string()).optional(),
      })
      .prefault({}),
  }),
  expect: expectedAnswer,
});

export type PolicyTest = z.infer<typeof policyTestSchema>;

/** What a test found: nothing, or the places in the test that do not hold. */
export interface PolicyTestResult {
  readonly name: string;
  readonly passed: boolean;
  readonly failures: readonly { readonly path: readonly PropertyKey[]; readonly message: string }[];
}

type Failure = PolicyTestResult['failures'][number];

/** Asks the engine what the test asks, and compares. */
export function runPolicyTest(test: PolicyTest, catalog: Catalog, engine: PolicyEngine): PolicyTestResult {
  const request = decisionRequest(test, catalog);
  const failures = 'failures' in request ? request.failures : differences(test, engine.decide(request));
  return { name: test.name, passed: failures.length === 0, failures };
}

export function differences(
  test: { readonly name: string; readonly expect: z.infer<typeof expectedAnswer> },
  decision: PolicyDecision,
): readonly Failure[] {
  const failures: Failure[] = [];
  const differ = (member: string, message: string): void => {
    failures.push({ path: ['expect', member], message: `"${test.name}": ${message}` });
  };
  const { expect } = test;
  const got = decision.permitted ? 'permit' : 'deny';
  const by = decision.policies.length === 0 ? 'no policy' : decision.policies.join(', ');
  // An error denies, and so would pass for any expected deny.
  if (decision.errors.length > 0) differ('decision', `a policy failed: ${decision.errors.join('; ')}`);
  if (got !== expect.decision) differ('decision', `expected ${expect.decision}, got ${got} by ${by}`);
  if (expect.policies !== undefined && !sameMembers(expect.policies, decision.policies)) {
    differ('policies', `it was decided by ${by}`);
  }
  if (expect.reasons !== undefined && !sameMembers(expect.reasons, decision.reasons)) {
    differ('reasons', `the reasons are ${JSON.stringify(decision.reasons)}`);
  }
  if (expect.max_ttl !== undefined && ttlSeconds(expect.max_ttl) !== decision.maxTtlSeconds) {
    const cap = decision.maxTtlSeconds === null ? 'there is no cap' : `the cap is ${decision.maxTtlSeconds}s`;
    differ('max_ttl', cap);
  }
  if (expect.per_call !== undefined && expect.per_call !== decision.perCall) {
    differ('per_call', `it is ${decision.perCall ? '' : 'not '}for one call`);
  }
  if (expect.approval !== undefined && !sameMembers(expect.approval, decision.approvalGroups)) {
    differ('approval', `the groups that must approve are ${JSON.stringify(decision.approvalGroups)}`);
  }
  if (expect.sealed_delivery !== undefined && expect.sealed_delivery !== decision.sealedDelivery) {
    differ('sealed_delivery', `it is ${decision.sealedDelivery ? '' : 'not '}required`);
  }
  return failures;
}

function sameMembers(expected: readonly string[], found: readonly string[]): boolean {
  return JSON.stringify([...expected].sort()) === JSON.stringify([...found].sort());
}

function decisionRequest(
  test: PolicyTest,
  catalog: Catalog,
): DecisionRequest | { readonly failures: readonly Failure[] } {
  const { request } = test;
  const { task } = request;
  const failures: Failure[] = [];
  const unknown = (path: readonly string[], message: string): void => {
    failures.push({ path: ['request', ...path], message });
  };
  const entitlement = catalog.entitlements.get(request.entitlement);
  const target = entitlement === undefined ? undefined : catalog.targets.get(entitlement.target);
  if (entitlement === undefined) unknown(['entitlement'], `there is no entitlement ${request.entitlement}`);
  const now = new Date(request.now);
  const assumed = assumedTask(task, catalog, now, (path, message) => unknown(['task', ...path], message));
  checkTree(request.tree, catalog, unknown);
  checkSignals(request.signals, catalog, unknown);
  if (failures.length > 0 || entitlement === undefined || target === undefined || assumed === undefined) {
    return { failures };
  }
  return {
    action: request.action,
    now,
    task: assumed,
    entitlement,
    target: assumedTarget(target, request.target),
    ttlSeconds: request.ttl_seconds ?? entitlement.maxTtlSeconds,
    guarantee: request.guarantee,
    history: assumedHistory(request, catalog),
    signals: assumedFacts(request.signals, catalog),
  };
}

type Unknown = (path: readonly string[], message: string) => void;

/** The plainest task of that purpose; undefined when something that is said of it is not in the catalog. */
export function assumedTask(
  task: z.infer<typeof assumedTaskSchema>,
  catalog: Catalog,
  now: Date,
  unknown: Unknown,
): DecisionRequest['task'] | undefined {
  const purpose = catalog.purposes.get(task.purpose);
  const { taskIssuers, tokenIssuers } = catalog.trust;
  const issuer = [...taskIssuers, ...tokenIssuers].find(({ name, purposes }) =>
    task.issuer === undefined ? purposes.includes(task.purpose) : name === task.issuer,
  );
  if (purpose === undefined) unknown(['purpose'], `there is no purpose ${task.purpose}`);
  else if (task.phase !== undefined && !purpose.phases.includes(task.phase)) {
    unknown(['phase'], `${task.purpose} has no phase ${task.phase}`);
  }
  if (task.issuer !== undefined && issuer === undefined) unknown(['issuer'], `there is no issuer ${task.issuer}`);
  const workload = task.workload ?? issuer?.workloads[0] ?? 'none:none';
  if (!workload.includes(':')) unknown(['workload'], 'must be `<source>:<subject>`');
  if (purpose === undefined) return undefined;
  const colon = workload.indexOf(':');
  return {
    id: 'test',
    purpose: task.purpose,
    phase: task.phase ?? purpose.phases[0] ?? null,
    issuer: issuer?.name ?? 'none',
    subject: task.subject,
    workload: { source: workload.slice(0, colon), subject: workload.slice(colon + 1) },
    instance: task.instance ?? null,
    proofOfPossession: task.proof_of_possession,
    depth: task.depth,
    createdAt: now,
    notAfter: new Date(now.getTime() + purpose.maxLifeSeconds * 1000),
    params: task.params,
  };
}

export function checkTree(tree: z.infer<typeof assumedTree>, catalog: Catalog, unknown: Unknown): void {
  for (const name of tree.held) {
    if (!catalog.entitlements.has(name)) unknown(['tree', 'held'], `there is no entitlement ${name}`);
  }
  for (const name of tree.touched) {
    if (!catalog.targets.has(name)) unknown(['tree', 'touched'], `there is no target ${name}`);
  }
}

export function checkSignals({ stale }: z.infer<typeof assumedSignals>, catalog: Catalog, unknown: Unknown): void {
  for (const name of stale) {
    if (!catalog.signalSources.some((source) => source.name === name))
      unknown(['signals', 'stale'], `there is no signal source ${name}`);
  }
}

export function assumedFacts(said: z.infer<typeof assumedSignals>, { signalSources }: Catalog): SignalFacts {
  const { risk, device, user, incident, change_freeze: changeFreeze, stale } = said;
  const kinds = signalSources.filter(({ name }) => stale.includes(name)).flatMap((source) => source.kinds);
  return { risk, device, user, incident, changeFreeze, staleSources: stale, staleKinds: [...new Set(kinds)] };
}

export function assumedHistory(
  { own, tree }: { readonly own: z.infer<typeof assumedOwn>; readonly tree: z.infer<typeof assumedTree> },
  { entitlements }: Pick<Catalog, 'entitlements'>,
): History {
  return {
    own: assumedCounted(own),
    tree: {
      ...assumedCounted(tree),
      sensitiveSinks: tree.sensitive_sinks,
      held: tree.held,
      dataClasses: [...new Set(tree.held.flatMap((name) => entitlements.get(name)?.dataClasses ?? []))],
      touched: tree.touched,
      heldSeconds: tree.held_minutes * 60,
    },
  };
}

function assumedCounted(said: z.infer<typeof assumedOwn>): History['own'] {
  return {
    ...{ liveGrants: said.live_grants, grants: said.grants, grantsOfThis: said.grants_of_this },
    uses: { asked: said.evaluations, permitted: said.evaluations_permitted },
  };
}

function assumedTarget(target: TargetDefinition, as: PolicyTest['request']['target']): TargetDefinition {
  return {
    ...target,
    environment: as.environment ?? target.environment,
    owner: as.owner ?? target.owner,
    sensitivity: as.sensitivity ?? target.sensitivity,
    labels: as.labels ?? target.labels,
  };
}
