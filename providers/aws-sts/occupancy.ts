import type { FenceView, Ref } from '../../src/provider.ts';
import { issuedMillis } from './issued.ts';

/** Of what a role could spare, so much is given away: several brokers issue at once, and each learns of the others by what the store says. */
const share = 0.8;
/** What the fence must have no room for is what ended and was minted within that: see the cut. */
const lagMillis = 60_000;
/** What nobody said lives for so long counts no more: another broker may have ended it, and this one would be the last to hear. */
const staleMillis = 120_000;
/** By then the store knows of what was minted here. */
const unknownMillis = 30_000;
/** Of a handle within a list, and of a document without one. Characters. */
const each = 15;
const fixed = 460;

interface Held {
  readonly until: number;
  readonly mintedAt: number;
  /** When it was minted or renewed here, or the store said last that it lives. */
  knownAt: number;
  ended: boolean;
}

/** How many grants a role holds, as far as this process knows: what it minted itself, and what the store said when it last fenced here. */
export class Occupancy {
  readonly #held = new Map<string, Held>();
  #others = 0;
  #readAt = Number.NEGATIVE_INFINITY;
  #cut = 0;

  /**
   * What was read of the role last.
   * @param others Characters of its inline policies that are nobody's fence.
   * @param cut Whatever was minted before is denied, unless it lives: no list names it.
   */
  read(others: number, cut: number | null): void {
    this.#others = others;
    this.#readAt = performance.now();
    this.#cut = Math.max(this.#cut, cut ?? 0);
  }

  /** Since when nothing was read of the role. Milliseconds. */
  get age(): number {
    return performance.now() - this.#readAt;
  }

  /** Or renewed. @param until When it is powerless. @param now Milliseconds on AWS's clock, as all times here. */
  minted(handle: string, until: number, now: number): void {
    const mintedAt = this.#held.get(handle)?.mintedAt ?? now;
    this.#held.set(handle, { until, mintedAt, knownAt: now, ended: false });
  }

  ended(refs: readonly Ref[]): void {
    for (const { handle } of refs) {
      const known = this.#held.get(handle);
      if (known !== undefined) known.ended = true;
    }
  }

  /** @param live Of this role, as the store has them. */
  seen(live: readonly Ref[], view: FenceView, now: number): void {
    const living = new Set(live.map(({ handle }) => handle));
    for (const [handle, held] of this.#held) {
      if (held.until <= now) this.#held.delete(handle);
      else if (!living.has(handle) && held.mintedAt < view.at.getTime() - unknownMillis) held.ended = true;
    }
    for (const { handle, facts, deadline } of live) {
      const known = this.#held.get(handle);
      if (known !== undefined) known.knownAt = now;
      else {
        const mintedAt = issuedMillis(facts) ?? now;
        this.#held.set(handle, { until: deadline.getTime(), mintedAt, knownAt: now, ended: false });
      }
    }
  }

  /**
   * Why no other grant should be minted: so many live, or ended a moment ago, that to end some of them might deny the whole role. Undefined
   * while there is room.
   * @param quota Characters of all inline policies of the role.
   */
  fullness(quota: number, now: number): { readonly held: number; readonly room: number } | undefined {
    const all = [...this.#held.values()].filter(({ until }) => until > now);
    const since = Math.max(now - lagMillis, this.#cut);
    const lives = ({ ended, knownAt }: Held) => !ended && knownAt > now - staleMillis;
    const counted = all.filter((one) => lives(one) || (one.ended && one.mintedAt >= since)).length;
    const fits = (part: number) => Math.max(0, Math.floor(share * (((quota - this.#others) * part - fixed) / each)));
    // The cut names what lives, and what ended since; a list names whatever ended, and might have to name the rest.
    const [byCut, byList] = [fits(1 / 2), fits(1 / 3)];
    if (counted < byCut || all.length < byList) return undefined;
    return { held: counted, room: Math.max(byCut, byList) };
  }
}
