import { z } from 'zod';
import { type Beat, type Holder, ProviderError } from '../../src/provider.ts';
import { refusal, saidBy, unreadable } from './errors.ts';
import type { Lane } from './target.ts';

const holderSchema = z.object({
  installation: z.string(),
  epoch: z.int(),
  store: z.string().nullable(),
  tenure: z.string().nullable(),
  beat: z.int(),
});
const endedSchema = z.object({ lease_paths: z.string().optional() });

/** What was found of a grant whose facts a crash lost, before it was ended. */
export interface Ended {
  /** Under which it may have left leases. */
  readonly leasePaths: readonly string[];
}

const versioned = <T extends z.ZodType>(data: T) =>
  z.object({ data: z.object({ data, metadata: z.object({ version: z.int() }) }) });

const notPrepared = 'the target keeps no record of its holder yet (mayfly target prepare)';
/** A beat that lost against another's is judged anew, so often. */
const tries = 5;
/** Years of beats at once are nobody's. */
const mostBeats = 10_000_000;

/** Two things that must survive us, kept in a KV version 2 mount of the target. Neither is a secret. */
export class KeptRecord {
  readonly #mount: string;

  constructor(mount: string) {
    this.#mount = mount;
  }

  /** The record of who holds the target, after the beat was written where it may be. @throws ProviderError */
  async hold(lane: Lane, signal: AbortSignal, beat: Beat | undefined): Promise<Holder> {
    for (let tried = 1; ; tried += 1) {
      const { holder, version } = await this.#holder(lane, signal);
      const ours =
        beat !== undefined &&
        (holder.tenure === null || (holder.tenure === beat.tenure && holder.store === beat.store));
      if (!ours || holder.beat >= beat.beat || beat.beat - holder.beat > mostBeats) return holder;
      const data = { ...holder, store: beat.store, tenure: beat.tenure, beat: beat.beat };
      const path = `${this.#mount}/data/holder`;
      const call = { method: 'POST', path, data: { data, options: { cas: version } } } as const;
      const written = await lane.call('holding the target', call, signal, [200, 400]);
      if (written.status === 200) return data;
      // Another wrote between: a beat of another replica, or of another broker.
      if (!/check-and-set/i.test(saidBy(written)) || tried === tries) throw refusal(written, 'holding the target');
    }
  }

  /**
   * Notes that a grant was ended before it was known what was made of it: a mint on its way looks here. What was noted of it before
   * stays. @throws ProviderError
   */
  async noteEnded(lane: Lane, handle: string, signal: AbortSignal): Promise<void> {
    const doing = 'noting an end';
    const call = { method: 'POST', path: this.#ended(handle), data: { data: {}, options: { cas: 0 } } } as const;
    const received = await lane.call(doing, call, signal, [200, 400]);
    if (received.status === 400 && !/check-and-set/i.test(saidBy(received))) throw refusal(received, doing);
  }

  /** @throws ProviderError */
  async notePaths(lane: Lane, handle: string, paths: readonly string[], signal: AbortSignal): Promise<void> {
    const data = { lease_paths: paths.join(' ') };
    await lane.call('noting an end', { method: 'POST', path: this.#ended(handle), data: { data } }, signal);
  }

  /** @throws ProviderError */
  async findEnded(lane: Lane, handle: string, signal: AbortSignal): Promise<Ended | null> {
    const doing = 'looking for an end';
    const call = { method: 'GET', path: this.#ended(handle) } as const;
    const received = await lane.call(doing, call, signal, [200, 404]);
    if (received.status === 404) {
      // Without a mount nothing was looked for.
      if (/route/i.test(saidBy(received))) throw new ProviderError('misconfigured', `${doing}: ${notPrepared}`);
      return null;
    }
    const parsed = versioned(endedSchema).safeParse(received.body);
    if (!parsed.success) throw unreadable(doing);
    return { leasePaths: parsed.data.data.data.lease_paths?.split(' ').filter(Boolean) ?? [] };
  }

  /** @throws ProviderError */
  async forgetEnded(lane: Lane, handle: string, signal: AbortSignal): Promise<void> {
    const call = { method: 'DELETE', path: `${this.#mount}/metadata/ended/${handle}` } as const;
    await lane.call('forgetting an end', call, signal, [200, 204, 404]);
  }

  #ended(handle: string): string {
    return `${this.#mount}/data/ended/${handle}`;
  }

  async #holder(lane: Lane, signal: AbortSignal): Promise<{ readonly holder: Holder; readonly version: number }> {
    const doing = 'reading who holds the target';
    const received = await lane.call(doing, { method: 'GET', path: `${this.#mount}/data/holder` }, signal, [200, 404]);
    if (received.status === 404) throw new ProviderError('misconfigured', `${doing}: ${notPrepared}`);
    const parsed = versioned(holderSchema).safeParse(received.body);
    if (!parsed.success) throw new ProviderError('misconfigured', `${doing}: ${notPrepared}`);
    return { holder: parsed.data.data.data, version: parsed.data.data.metadata.version };
  }
}
