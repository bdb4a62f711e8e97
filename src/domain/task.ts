import type { TaskId } from './ids.ts';
import type { Machine } from './machine.ts';

export type TaskState = 'offered' | 'active' | 'suspended' | 'completed' | 'cancelled' | 'expired' | 'revoked';

/** DESIGN §1, States. */
export const taskMachine: Machine<TaskState> = {
  name: 'task',
  births: ['active', 'offered'],
  transitions: {
    offered: ['active', 'cancelled'],
    active: ['suspended', 'completed', 'cancelled', 'expired', 'revoked'],
    suspended: ['active', 'completed', 'cancelled', 'expired', 'revoked'],
    completed: [],
    cancelled: [],
    expired: [],
    revoked: [],
  },
};

/** Why a task or a grant ended. */
export type EndedBy =
  | 'completed'
  | 'cancelled'
  | 'expired'
  | 'released'
  | 'drift'
  | 'signal'
  | 'operator'
  | 'parent_ended'
  | 'mint_failed'
  | 'orphaned'
  /** The fence of its target had no room to spare it when others were ended. */
  | 'cut_off';

/** The upper bound that the signed request sets. Policy narrows it; nothing widens it. */
export interface Ceiling {
  readonly entitlements: readonly string[];
  /** Typed parameters, bound only by the signed request. */
  readonly params: Readonly<Record<string, ParamValue>>;
  /** Longest life of one grant in seconds, when the request sets one. */
  readonly maxTtlSeconds: number | null;
}

/** No wider than the other one: only its entitlements, never longer, and with its params. */
export function narrowed(ceiling: Ceiling, by: Ceiling): Ceiling {
  const longest = [ceiling.maxTtlSeconds, by.maxTtlSeconds].filter((seconds) => seconds !== null);
  return {
    entitlements: ceiling.entitlements.filter((name) => by.entitlements.includes(name)),
    params: by.params,
    maxTtlSeconds: longest.length === 0 ? null : Math.min(...longest),
  };
}

export type ParamValue = string | number | boolean;

/** An agent process: the trust source named in the catalog, and its subject. */
export interface Workload {
  readonly source: string;
  readonly subject: string;
}

/** `<source>:<subject>`: two sources with one subject are two workloads. */
export function workloadId(workload: Workload): string {
  return `${workload.source}:${workload.subject}`;
}

/** Whom a task and its grants belong to. DESIGN §2, invariant 12. */
export interface Owner {
  readonly workload: Workload;
  /** SHA-256 thumbprint (RFC 7638) of the key that the task names, or that the caller has proven to hold; null: none. */
  readonly keyThumbprint: string | null;
  /** One running copy of the workload: a pod, a workflow run. Null: its source does not tell copies apart. */
  readonly instance: string | null;
}

/** Whether the caller owns the task: it is its workload and has proven the key that the task names, or else is the copy that opened it. */
export function owns(caller: Owner, task: Owner): boolean {
  if (workloadId(task.workload) !== workloadId(caller.workload)) return false;
  if (task.keyThumbprint !== null) return task.keyThumbprint === caller.keyThumbprint;
  return task.instance === null || task.instance === caller.instance;
}

export interface Task extends Owner {
  readonly id: TaskId;
  readonly rootId: TaskId;
  readonly parentId: TaskId | null;
  readonly depth: number;
  readonly maxDepth: number;
  readonly issuer: string;
  readonly externalId: string;
  readonly jti: string;
  readonly txn: string | null;
  readonly state: TaskState;
  readonly purpose: string;
  readonly phase: string | null;
  /** On whose behalf. */
  readonly subject: string;
  /** Of a key besides `keyThumbprint` that its credentials may be sealed to, where the request names one. */
  readonly deliveryThumbprint: string | null;
  readonly ceiling: Ceiling;
  readonly intentHash: string | null;
  readonly createdAt: Date;
  readonly notAfter: Date;
  readonly endedAt: Date | null;
  readonly endedBy: EndedBy | null;
}
