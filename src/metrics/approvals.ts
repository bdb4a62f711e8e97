import { Gauge, type Registry } from 'prom-client';

/** What the store says of approvals. */
export interface ApprovalsSeen {
  readonly pending: number;
  readonly oldestSeconds: number;
}

export function createApprovalMetrics(registers: Registry[]): {
  /** @param seen Undefined: the store did not say, and nothing is shown. */
  show(seen: ApprovalsSeen | undefined): void;
} {
  const pending = new Gauge({
    name: 'mayfly_approvals_pending',
    help: 'Grants that wait for an approval that nobody has decided.',
    registers,
  });
  const oldest = new Gauge({
    name: 'mayfly_approvals_oldest_seconds',
    help: 'How long the oldest of them has waited; 0 when there is none.',
    registers,
  });
  return {
    show: (seen) => {
      pending.set(seen?.pending ?? Number.NaN);
      oldest.set(seen?.oldestSeconds ?? Number.NaN);
    },
  };
}
