import { z } from 'zod';
import { type Workload, workloadId } from '../domain/task.ts';
import type { CedarRequest, CedarValueJson, EntityJson, TypeAndId } from './cedar.ts';
import type { DecisionRequest, History, SignalFacts } from './types.ts';

/**
 * Puts a decision request into the terms of the broker's schema (`mayfly-schema.ts`). Every entity that a policy
 * can reach from the request is there; nothing that the schema does not name is passed, and no secret: a target's
 * `connection` and an entitlement's `provider` section stay out.
 */
export function cedarRequest(request: DecisionRequest): CedarRequest {
  const { action, task, entitlement, target, history, signals } = request;
  const entities: EntityJson[] = [...taskEntities(task, signals), ...entitlementEntities(entitlement, target)];
  return {
    principal: uid('Task', task.id),
    action: uid('Action', action),
    resource: uid('Entitlement', entitlement.name),
    context: {
      now: datetime(request.now),
      ttl: duration(request.ttlSeconds),
      guarantee: request.guarantee,
      ...taskContext(task, history),
      ...signalContext(signals),
    },
    entities,
  };
}

/** The entitlement, and the target that it is in. */
export function entitlementEntities(
  entitlement: DecisionRequest['entitlement'],
  target: DecisionRequest['target'],
): readonly EntityJson[] {
  const targetUid = uid('Target', target.name);
  return [
    {
      uid: uid('Entitlement', entitlement.name),
      attrs: {
        target: { __entity: targetUid },
        sensitivity: entitlement.sensitivity,
        actions: [...entitlement.actions],
        data_classes: [...entitlement.dataClasses],
        sink: entitlement.sink,
        max_ttl: duration(entitlement.maxTtlSeconds),
      },
      parents: [targetUid],
    },
    {
      uid: targetUid,
      attrs: {
        provider: target.provider,
        environment: target.environment,
        owner: target.owner,
        sensitivity: target.sensitivity,
      },
      parents: [],
      tags: { ...target.labels },
    },
  ];
}

/** The task, and the workload that it is in. */
export function taskEntities(task: DecisionRequest['task'], signals: SignalFacts): readonly EntityJson[] {
  const workload = workloadEntity(task.workload, signals);
  return [
    {
      uid: uid('Task', task.id),
      attrs: {
        purpose: task.purpose,
        phase: task.phase ?? '',
        issuer: task.issuer,
        subject: task.subject,
        workload: { __entity: workload.uid },
        instance: task.instance ?? '',
        depth: task.depth,
        created_at: datetime(task.createdAt),
        not_after: datetime(task.notAfter),
      },
      parents: [workload.uid],
      tags: Object.fromEntries(Object.entries(task.params).map(([name, value]) => [name, String(value)])),
    },
    workload,
  ];
}

export function workloadEntity(
  workload: Workload,
  { risk }: Pick<SignalFacts, 'risk'>,
): EntityJson & { readonly uid: TypeAndId } {
  const { source, subject } = workload;
  return { uid: uid('Workload', workloadId(workload)), attrs: { source, subject, risk }, parents: [] };
}

/** What signals say beside the workload's risk. */
export function signalContext(
  signals: SignalFacts,
): Readonly<Record<'incident' | 'change_freeze' | 'device' | 'user' | 'signals', CedarValueJson>> {
  const { incident, changeFreeze, device, user, staleSources, staleKinds } = signals;
  return {
    ...{ incident, change_freeze: changeFreeze, device, user },
    signals: {
      stale: staleSources.length > 0,
      stale_sources: [...staleSources],
      stale_kinds: [...staleKinds],
    },
  };
}

/** What the broker knows of a task beside the task itself. */
export function taskContext(
  task: Pick<DecisionRequest['task'], 'proofOfPossession'>,
  { own, tree }: History,
): Readonly<Record<'proof_of_possession' | 'own' | 'tree', CedarValueJson>> {
  return {
    proof_of_possession: task.proofOfPossession,
    own: counts(own),
    tree: treeContext(tree),
  };
}

function counts({
  liveGrants,
  grants,
  grantsOfThis,
  uses,
}: History['own']): Readonly<Record<keyof typeof noCounts, number>> {
  return {
    ...{ live_grants: liveGrants, grants, grants_of_this: grantsOfThis },
    ...{ evaluations: uses.asked, evaluations_permitted: uses.permitted },
  };
}

const noCounts = { live_grants: 0, grants: 0, grants_of_this: 0, evaluations: 0, evaluations_permitted: 0 };

function treeContext(tree: History['tree']): CedarValueJson {
  return {
    ...counts(tree),
    sensitive_sinks: tree.sensitiveSinks,
    held: tree.held.map((name) => ({ __entity: uid('Entitlement', name) })),
    data_classes: [...tree.dataClasses],
    touched: tree.touched.map((name) => ({ __entity: uid('Target', name) })),
    held_minutes: Math.floor(tree.heldSeconds / 60),
  };
}

const uidSchema = z.strictObject({ type: z.string(), id: z.string() });
const value = z.json();

const inputsSchema = z.strictObject({
  principal: uidSchema,
  action: uidSchema,
  resource: uidSchema,
  context: z.record(z.string(), value),
  entities: z.array(
    z.strictObject({
      uid: uidSchema,
      attrs: z.record(z.string(), value),
      parents: z.array(uidSchema),
      tags: z.record(z.string(), value).optional(),
    }),
  ),
});

/**
 * What the schema has that earlier releases' had not. Decisions of theirs were made by policies that could not know it, so that any
 * value gives the same answer.
 */
const later: Readonly<
  Record<'context' | 'own' | 'tree' | 'task' | 'workload' | 'entitlement', Readonly<Record<string, CedarValueJson>>>
> = {
  context: {
    ...{ proof_of_possession: true, own: noCounts },
    ...{ incident: false, change_freeze: false, device: 'unknown', user: 'unknown' },
    signals: { stale: false, stale_sources: [], stale_kinds: [] },
  },
  own: noCounts,
  tree: { ...noCounts, held: [], data_classes: [], touched: [], held_minutes: 0 },
  task: { instance: '' },
  workload: { risk: 'unknown' },
  entitlement: { data_classes: [] },
};

/** The inputs of an earlier decision, as they came back from storage; undefined when they are not such inputs. */
export function recordedRequest(inputs: unknown): CedarRequest | undefined {
  const parsed = inputsSchema.safeParse(inputs);
  if (!parsed.success) return undefined;
  const { entities, context, ...rest } = parsed.data;
  const added = new Map([
    ['Mayfly::Task', later.task],
    ['Mayfly::Workload', later.workload],
    ['Mayfly::Entitlement', later.entitlement],
  ]);
  return {
    ...rest,
    context: withCounts(rest.action.type === 'Mayfly::Action' ? { ...later.context, ...context } : context),
    entities: entities.map(({ tags, attrs, ...entity }) => ({
      ...entity,
      attrs: { ...added.get(entity.uid.type), ...attrs },
      ...(tags === undefined ? {} : { tags }),
    })),
  };
}

/** What is told of a task and its tree has grown; an evaluation has it only where its action declares it. */
function withCounts(context: Readonly<Record<string, CedarValueJson>>): Readonly<Record<string, CedarValueJson>> {
  const { own, tree } = context;
  return {
    ...context,
    ...(isObject(own) ? { own: { ...later.own, ...own } } : {}),
    ...(isObject(tree) ? { tree: { ...later.tree, ...tree } } : {}),
  };
}

function isObject(json: unknown): json is Readonly<Record<string, CedarValueJson>> {
  return typeof json === 'object' && json !== null && !Array.isArray(json);
}

export function uid(type: string, id: string): TypeAndId {
  return { type: `Mayfly::${type}`, id };
}

export function datetime(date: Date): CedarValueJson {
  return { __extn: { fn: 'datetime', arg: date.toISOString() } };
}

/** Cedar's durations are whole milliseconds; fractions of a second can come from a deadline that is near. */
function duration(seconds: number): CedarValueJson {
  return { __extn: { fn: 'duration', arg: `${Math.floor(seconds * 1000)}ms` } };
}
