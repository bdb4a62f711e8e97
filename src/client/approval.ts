import type { PendingBody } from './bodies.ts';
import type { MayflyClient } from './index.ts';

/** What waits for an approval, while `issue` does. */
export interface ApprovalOptions {
  /** Seconds to wait for it, at most; 0: not at all. Default: as long as it may be approved. */
  readonly wait?: number;
  /** It waits from now on: who may approve it, until when. */
  readonly onPending?: (pending: PendingBody) => void;
  /** It was decided, whatever came of it: what is collected now lives from now on. */
  readonly onDecided?: () => void;
  /** Stops waiting. The grant waits on until its approval lapses, or its task ends. */
  readonly signal?: AbortSignal;
}

/** It was not decided in the time that was waited. It can be collected later, once it is. */
export class ApprovalPending extends Error {
  readonly pending: PendingBody;

  constructor(pending: PendingBody) {
    const { approval, grant } = pending;
    super(`Grant ${grant.id} waits for its approval (${approval.id}) by ${approval.groups.join(' and ')}.`);
    this.name = 'ApprovalPending';
    this.pending = pending;
  }
}

/** Of one question. Shorter than what stands between usually lets a connection idle. */
const POLL_SECONDS = 30;

/** Waits until it was decided, whatever came of it. @throws ApprovalPending, or the signal's reason. */
export async function untilDecided(
  client: Pick<MayflyClient, 'grant'>,
  pending: PendingBody,
  { wait = Number.POSITIVE_INFINITY, signal, onDecided }: ApprovalOptions,
): Promise<void> {
  const end = performance.now() + wait * 1000;
  const stopped = new Promise<never>((_, reject) => {
    const stop = () => reject(signal?.reason instanceof Error ? signal.reason : new Error('Stopped waiting.'));
    if (signal?.aborted === true) stop();
    else signal?.addEventListener('abort', stop, { once: true });
  });
  // Nobody may be waiting any more when it fires.
  stopped.catch(() => {});
  for (let state = pending.grant.state; state === 'pending_approval'; ) {
    const left = Math.ceil((end - performance.now()) / 1000);
    if (left <= 0) throw new ApprovalPending(pending);
    const grant = client.grant(pending.grant.id, { wait: Math.min(POLL_SECONDS, left) });
    ({ state } = await Promise.race([grant, stopped]));
  }
  onDecided?.();
}
