import type { Catalog } from '../catalog/types.ts';
import { MayflyError } from '../domain/errors.ts';
import { namesWorkload } from '../domain/named-workloads.ts';
import type { Task } from '../domain/task.ts';

/** What a task stands on besides policy, and the catalog can take away from it. */
export type Fallen =
  | 'issuer_distrusted'
  | 'issuer_may_not_state'
  | 'workload_source_gone'
  | 'purpose_gone'
  | 'phase_unknown';

const says: Readonly<Record<Fallen, string>> = {
  issuer_distrusted: 'The catalog does not trust the issuer of this task any more.',
  issuer_may_not_state: 'The catalog does not let this issuer state such a task any more.',
  workload_source_gone: 'The catalog does not know where this workload comes from any more.',
  purpose_gone: 'The catalog does not know the purpose of this task any more.',
  phase_unknown: 'The catalog does not know the phase of this task any more.',
};

/** Why such a task could not be opened by this catalog; undefined: it could. */
export function fallenOf(
  catalog: Pick<Catalog, 'trust' | 'purposes'>,
  task: Pick<Task, 'issuer' | 'purpose' | 'phase' | 'subject' | 'workload'>,
): Fallen | undefined {
  const { trust, purposes } = catalog;
  const issuers = [...trust.taskIssuers, ...trust.tokenIssuers].filter(({ issuer }) => issuer === task.issuer);
  if (issuers.length === 0) return 'issuer_distrusted';
  const alone = task.subject === task.workload.subject;
  const states = issuers.some(
    (issuer) =>
      issuer.purposes.includes(task.purpose) &&
      namesWorkload(issuer.workloads, task.workload) &&
      (issuer.autonomous || !alone),
  );
  if (!states) return 'issuer_may_not_state';
  if (!trust.workloadSources.some(({ name }) => name === task.workload.source)) return 'workload_source_gone';
  const purpose = purposes.get(task.purpose);
  if (purpose === undefined) return 'purpose_gone';
  return task.phase === null || purpose.phases.includes(task.phase) ? undefined : 'phase_unknown';
}

/** @throws MayflyError `issuer_may_not_state`: what was opened under an earlier revision gets nothing more than what could be opened now. */
export function requireStanding(catalog: Pick<Catalog, 'trust' | 'purposes'>, task: Task): void {
  const fallen = fallenOf(catalog, task);
  if (fallen !== undefined) throw new MayflyError('issuer_may_not_state', says[fallen]);
}
