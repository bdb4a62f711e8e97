import type { GrantId } from '../domain/ids.ts';
import type { Task } from '../domain/task.ts';
import type { Transaction } from '../store/database.ts';
import { endGrants, type GrantWithRevocation } from '../store/grants.ts';
import type { CallContext } from './deps.ts';
import { grantEvent } from './evidence.ts';

/** Its Idempotency-Key came again: nobody holds the first secret, so that grant ends. */
export async function endForReplay(
  tx: Transaction,
  grantId: GrantId,
  task: Task,
  digest: string,
  context: CallContext,
  replacedBy: GrantId | null,
): Promise<readonly GrantWithRevocation[]> {
  const ended = await endGrants(tx, { grantIds: [grantId] }, 'released');
  for (const { grant } of ended) {
    const payload = { by: 'idempotency_key', replaced_by: replacedBy };
    tx.record(grantEvent('grant.ended', task, grant, digest, context, { cause: 'released', payload }));
    tx.changed(task.id);
  }
  return ended;
}
