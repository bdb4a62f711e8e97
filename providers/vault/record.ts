import { z } from 'zod';
import { type Beat, type Holder, ProviderError } from '../../src/provider.ts';
import { refusal, saidBy } from './errors.ts';
import type { Lane } from './target.ts';

const holderSchema = z.object({
  installation: z.string(),
  epoch: z.int(),
  store: z.string().nullable(),
  tenure: z.string().nullable(),
  beat: z.int(),
});

const storedSchema = z.object({
  data: z.object({ data: holderSchema, metadata: z.object({ version: z.int() }) }),
});

const notPrepared = 'the target keeps no record of its holder yet (mayfly target prepare)';
/** A beat that lost against another's is judged anew, so often. */
const tries = 5;
/** Years of beats at once are nobody's. */
const mostBeats = 10_000_000;

const wentBack =
  'Vault shows an earlier state than it had: was it restored from a backup? What it lost may still work where it was given for ' +
  '(mayfly target adopt, when that was looked at)';

type Seen = Pick<Holder, 'epoch' | 'tenure' | 'beat'>;

/** Who holds the target, kept in a KV version 2 mount of it. No secret. */
export class KeptRecord {
  readonly #mount: string;
  readonly #log: (event: Readonly<Record<string, unknown>>, message: string) => void;
  /** The highest beat that the target has shown to this process, and whose. */
  #seen: Seen | undefined;
  /** What it showed when it had gone back. */
  #restoredTo: Seen | undefined;

  constructor(mount: string, log: (event: Readonly<Record<string, unknown>>, message: string) => void) {
    this.#mount = mount;
    this.#log = log;
  }

  /** What was there and is not may have been forgotten. */
  get wentBack(): boolean {
    return this.#restoredTo !== undefined;
  }

  /**
   * A beat never goes back by itself: since it did, nothing more is made there until somebody adopts the target.
   * @throws ProviderError
   */
  assertForward(): void {
    if (this.wentBack) throw new ProviderError('misconfigured', `minting: ${wentBack}`, { wholeTarget: true });
  }

  /** The record of who holds the target, after the beat was written where it may be. @throws ProviderError */
  async hold(lane: Lane, signal: AbortSignal, beat: Beat | undefined): Promise<Holder> {
    for (let tried = 1; ; tried += 1) {
      const before = this.#seen;
      const { holder, version } = await this.#holder(lane, signal);
      this.#notice(holder, before);
      const ours =
        beat !== undefined &&
        (holder.tenure === null || (holder.tenure === beat.tenure && holder.store === beat.store));
      if (!ours || holder.beat >= beat.beat || beat.beat - holder.beat > mostBeats) return holder;
      const data = { ...holder, store: beat.store, tenure: beat.tenure, beat: beat.beat };
      const path = `${this.#mount}/data/holder`;
      const call = { method: 'POST', path, data: { data, options: { cas: version } } } as const;
      const written = await lane.call('holding the target', call, signal, [200, 400]);
      if (written.status === 200) {
        this.#notice(data, undefined);
        return data;
      }
      // Another wrote between: a beat of another replica, or of another broker.
      if (!/check-and-set/i.test(saidBy(written)) || tried === tries) throw refusal(written, 'holding the target');
    }
  }

  /** @param before What had been seen before it was asked: answers may overtake each other. */
  #notice(holder: Holder, before: Seen | undefined): void {
    const { epoch, tenure, beat } = holder;
    const back = before !== undefined && (epoch < before.epoch || (tenure === before.tenure && beat < before.beat));
    if (back) {
      if (this.#restoredTo === undefined) this.#log({ alert: 'restored', beat, seen: before.beat }, wentBack);
      this.#restoredTo = { epoch, tenure, beat };
      return;
    }
    // An adoption begins another tenure: a person's word that it was looked at.
    if (this.#restoredTo !== undefined && this.#restoredTo.tenure !== tenure) {
      this.#restoredTo = undefined;
      this.#seen = { epoch, tenure, beat };
    }
    const seen = this.#seen;
    if (seen === undefined || epoch > seen.epoch || tenure !== seen.tenure || beat > seen.beat)
      this.#seen = { epoch, tenure, beat };
  }

  async #holder(lane: Lane, signal: AbortSignal): Promise<{ readonly holder: Holder; readonly version: number }> {
    const doing = 'reading who holds the target';
    const received = await lane.call(doing, { method: 'GET', path: `${this.#mount}/data/holder` }, signal, [200, 404]);
    if (received.status === 404) throw new ProviderError('misconfigured', `${doing}: ${notPrepared}`);
    const parsed = storedSchema.safeParse(received.body);
    if (!parsed.success) throw new ProviderError('misconfigured', `${doing}: ${notPrepared}`);
    return { holder: parsed.data.data.data, version: parsed.data.data.metadata.version };
  }
}
