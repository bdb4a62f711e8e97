import { readPolicySet } from '../catalog/load.ts';
import type { PolicySet, PolicySource } from '../catalog/types.ts';
import { MayflyError } from '../domain/errors.ts';
import type { DecisionId } from '../domain/ids.ts';
import type { Caller } from '../identity/types.ts';
import { createPolicyEngine, type OwnedPolicyEngine } from '../policy/engine.ts';
import { type Approval, findApprovalOfGrant } from '../store/approvals.ts';
import { findRevision } from '../store/catalog-revisions.ts';
import { type DecisionFilter, findDecision, listDecisions, type StoredDecision } from '../store/decisions.ts';
import type { BrokerDeps } from './deps.ts';
import { InTurn } from './in-turn.ts';
import { isTargetInScope, requireRole } from './operator-scope.ts';

/** The same answer came again, another one did, or it can not be asked again: no policy made it, or its revision does not hold any more. */
export type Replay = 'identical' | 'different' | 'impossible';

export interface ExplainedDecision {
  readonly decision: StoredDecision;
  /** The policies that determined it, as they stood in its revision. */
  readonly policies: readonly PolicySource[];
  readonly replay: Replay;
  /** Of the grant that came of it, where it wanted one. */
  readonly approval: Approval | undefined;
}

/**
 * A decision with all that it was made from, and made again from just that.
 * @throws MayflyError `operator_only`, `not_found`, `policies_busy`
 */
export async function explainDecision(deps: BrokerDeps, caller: Caller, id: DecisionId): Promise<ExplainedDecision> {
  const { scope } = requireRole(deps, caller, 'viewer');
  const decision = await findDecision(deps.db, id);
  if (decision === undefined || !isTargetInScope(scope, targetOf(decision))) throw new MayflyError('not_found');
  const approval = decision.grantId === null ? undefined : await findApprovalOfGrant(deps.db, decision.grantId);
  return await withRevisions(deps, async (revisions) => {
    const { policySet } = await revisions.of(decision.revision);
    const policies = policySet.policies.filter((policy) => decision.policies.includes(policy.id));
    return { decision, policies, replay: await revisions.replay(decision), approval };
  });
}

/**
 * A page of decisions in the caller's scope, the latest first, each made again.
 * @throws MayflyError `operator_only`, `policies_busy`
 */
export async function replayDecisions(
  deps: BrokerDeps,
  caller: Caller,
  filter: DecisionFilter,
  before: DecisionId | null,
  limit: number,
): Promise<{
  readonly items: readonly Omit<ExplainedDecision, 'policies' | 'approval'>[];
  readonly next: DecisionId | undefined;
}> {
  const { scope } = requireRole(deps, caller, 'viewer');
  const found = await listDecisions(deps.db, filter, scope && [...scope], before, limit + 1);
  return await withRevisions(deps, async (revisions) => {
    const items = [];
    for (const decision of found.slice(0, limit)) items.push({ decision, replay: await revisions.replay(decision) });
    return { items, next: found.length > limit ? items.at(-1)?.decision.id : undefined };
  });
}

/** `<target>/<name>`, also of an entitlement that the catalog does not know any more. */
function targetOf({ resource }: StoredDecision): string {
  return resource.replace(/\/.*$/, '');
}

interface Revision {
  readonly policySet: PolicySet;
  /** Undefined where the set does not hold by today's rules. */
  readonly engine: OwnedPolicyEngine | undefined;
}

/** One call after another has policies of earlier revisions made ready: several at once would leave none for a revision that is applied. */
const turns = new InTurn(10_000);

async function withRevisions<T>(deps: BrokerDeps, work: (revisions: Revisions) => Promise<T>): Promise<T> {
  return await turns.run(async () => {
    const revisions = new Revisions(deps);
    try {
      return await work(revisions);
    } finally {
      revisions.close();
    }
  });
}

/** Engines at once: few may be open in all (`cedar.ts`), those of a comparison and of the revision in force among them. */
const READY = 3;

/** Policies of earlier revisions, made ready, those used last. They hold memory until they are closed. */
class Revisions {
  readonly #deps: BrokerDeps;
  readonly #read = new Map<number, Revision>();

  constructor(deps: BrokerDeps) {
    this.#deps = deps;
  }

  async of(number: number): Promise<Revision> {
    const known = this.#read.get(number);
    if (known !== undefined) {
      // Back in as the latest: a map remembers the order.
      this.#read.delete(number);
      this.#read.set(number, known);
      return known;
    }
    const stored = await findRevision(this.#deps.db, number);
    const policySet = readPolicySet(stored?.files ?? {}, []);
    for (const [oldest, { engine }] of this.#read) {
      if (this.#read.size < READY) break;
      engine?.close();
      this.#read.delete(oldest);
    }
    const revision = { policySet, engine: stored === undefined ? undefined : ready(policySet, stored.digest) };
    this.#read.set(number, revision);
    return revision;
  }

  async replay(decision: StoredDecision): Promise<Replay> {
    const { engine } = await this.of(decision.revision);
    if (engine === undefined || Object.keys(decision.inputs).length === 0) return 'impossible';
    const again = engine.replay(decision.inputs);
    const same =
      again.permitted === decision.permitted &&
      again.maxTtlSeconds === decision.maxTtlSeconds &&
      sameMembers(again.policies, decision.policies) &&
      sameMembers(again.errors, decision.errors);
    return same ? 'identical' : 'different';
  }

  close(): void {
    for (const { engine } of this.#read.values()) engine?.close();
  }
}

function ready(policySet: PolicySet, digest: string): OwnedPolicyEngine | undefined {
  try {
    return createPolicyEngine(policySet, digest);
  } catch (error) {
    // That it can not be said now says nothing of the decision.
    if (error instanceof MayflyError && error.code === 'policies_busy') throw error;
    return undefined;
  }
}

function sameMembers(one: readonly string[], other: readonly string[]): boolean {
  return JSON.stringify([...one].sort()) === JSON.stringify([...other].sort());
}
