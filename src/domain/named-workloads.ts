import { type Workload, workloadId } from './task.ts';

/**
 * Whether a catalog's list names this workload: by its exact id, or by an entry that ends with `/*`, below that path.
 * `catalog check` takes such an entry for SPIFFE IDs only, whose one spelling makes a prefix safe.
 */
export function namesWorkload(list: readonly string[], workload: Workload): boolean {
  const id = workloadId(workload);
  return list.some((entry) => entry === id || (entry.endsWith('/*') && id.startsWith(entry.slice(0, -1))));
}
