import { createHash } from 'node:crypto';
import canonicalize from 'canonicalize';
import type { EntitlementDefinition, TargetDefinition } from '../catalog/types.ts';
import type { Grant } from '../domain/grant.ts';
import { wireId } from '../domain/ids.ts';
import { type Task, workloadId } from '../domain/task.ts';
import type { Asked } from '../store/approvals.ts';

export interface AskedFor {
  readonly entitlement: EntitlementDefinition;
  readonly target: TargetDefinition;
  readonly params: Grant['params'];
  readonly guarantee: Grant['guarantee'];
  readonly ttlSeconds: number;
  readonly delivery: { readonly thumbprint: string } | null;
  readonly justification: string | null;
  readonly perCall: boolean;
}

/** Everything that an approval is for. Whoever changes one part of it has nothing approved. */
export function askedOf(task: Task, asked: AskedFor): Asked {
  return {
    task_id: wireId('task', task.id),
    owner: { workload: workloadId(task.workload), key: task.keyThumbprint, instance: task.instance },
    entitlement: { ...asked.entitlement },
    target: { ...asked.target },
    params: asked.params,
    ttl_seconds: asked.ttlSeconds,
    guarantee: asked.guarantee.revocation,
    delivery: asked.delivery?.thumbprint ?? null,
    justification: asked.justification,
    per_call: asked.perCall,
  };
}

/** SHA-256 of its canonical form (RFC 8785). */
export function digestOfAsked(asked: Asked): Buffer {
  const text = canonicalize(asked);
  if (text === undefined) throw new Error('What was asked has no canonical form.');
  return createHash('sha256').update(text).digest();
}

/** The parts in which they differ. */
export function differences(one: Asked, other: Asked): readonly string[] {
  const of = (asked: Asked) => new Map(Object.entries(asked).map(([name, value]) => [name, canonicalize(value)]));
  const others = of(other);
  return [...of(one)].flatMap(([name, text]) => (others.get(name) === text ? [] : [name]));
}
