import { z } from 'zod';
import { workloadId } from '../domain/task.ts';
import type { CedarRequest, CedarValueJson, EntityJson, TypeAndId } from './cedar.ts';
import type { DecisionRequest } from './types.ts';

/**
 * Puts a decision request into the terms of the broker's schema (`mayfly-schema.ts`). Every entity that a policy
 * can reach from the request is there; nothing that the schema does not name is passed, and no secret: a target's
 * `connection` and an entitlement's `provider` section stay out.
 */
export function cedarRequest(request: DecisionRequest): CedarRequest {
  const { action, task, entitlement, target, tree } = request;
  const workload = uid('Workload', workloadId(task.workload));
  const targetUid = uid('Target', target.name);
  const entities: EntityJson[] = [
    {
      uid: uid('Task', task.id),
      attrs: {
        purpose: task.purpose,
        phase: task.phase ?? '',
        issuer: task.issuer,
        subject: task.subject,
        workload: { __entity: workload },
        depth: task.depth,
        created_at: datetime(task.createdAt),
        not_after: datetime(task.notAfter),
      },
      parents: [workload],
      tags: Object.fromEntries(Object.entries(task.params).map(([name, value]) => [name, String(value)])),
    },
    { uid: workload, attrs: { source: task.workload.source, subject: task.workload.subject }, parents: [] },
    {
      uid: uid('Entitlement', entitlement.name),
      attrs: {
        target: { __entity: targetUid },
        sensitivity: entitlement.sensitivity,
        actions: [...entitlement.actions],
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
  return {
    principal: uid('Task', task.id),
    action: uid('Action', action),
    resource: uid('Entitlement', entitlement.name),
    context: {
      now: datetime(request.now),
      ttl: duration(request.ttlSeconds),
      guarantee: request.guarantee,
      tree: { live_grants: tree.liveGrants, sensitive_sinks: tree.sensitiveSinks },
    },
    entities,
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

/** The inputs of an earlier decision, as they came back from storage; undefined when they are not such inputs. */
export function recordedRequest(inputs: unknown): CedarRequest | undefined {
  const parsed = inputsSchema.safeParse(inputs);
  if (!parsed.success) return undefined;
  const { entities, ...rest } = parsed.data;
  return {
    ...rest,
    entities: entities.map(({ tags, ...entity }) => (tags === undefined ? entity : { ...entity, tags })),
  };
}

function uid(type: string, id: string): TypeAndId {
  return { type: `Mayfly::${type}`, id };
}

function datetime(date: Date): CedarValueJson {
  return { __extn: { fn: 'datetime', arg: date.toISOString() } };
}

/** Cedar's durations are whole milliseconds; fractions of a second can come from a deadline that is near. */
function duration(seconds: number): CedarValueJson {
  return { __extn: { fn: 'duration', arg: `${Math.floor(seconds * 1000)}ms` } };
}
