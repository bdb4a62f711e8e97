import type { Timeline } from './timeline.ts';

/** All inline policies of a role together. */
export const INLINE_CHARACTERS = 10_240;

interface Version {
  readonly seq: number;
  /** Undefined for a deletion. */
  readonly document: string | undefined;
  readonly effectiveAt: number;
}

/**
 * The inline policies of one role as IAM has them: a write shows at once, and decides after its own time. One policy decides by its
 * last write that has arrived, so that a write which arrives late behind a later one never counts.
 */
export class ModelRole {
  /** The characters of all its policies, after each write. */
  largest = 0;
  writes = 0;
  refused = 0;
  readonly #policies = new Map<string, Version[]>();
  #seq = 0;
  readonly #timeline: Timeline;
  readonly #delay: () => number;
  readonly #changed: () => void;
  /** Characters of what the role has for itself. */
  readonly others: number;

  /** @param changed What decides is another thing now. */
  constructor(timeline: Timeline, others: number, delay: () => number, changed: () => void) {
    this.#timeline = timeline;
    this.others = others;
    this.#delay = delay;
    this.#changed = changed;
  }

  /** When it decides everywhere; undefined where the quota refuses it. */
  put(name: string, document: string | undefined): number | undefined {
    const size = this.size(name) + (document?.length ?? 0);
    if (document !== undefined && size > INLINE_CHARACTERS) {
      this.refused += 1;
      return undefined;
    }
    this.writes += 1;
    this.largest = Math.max(this.largest, size);
    const delay = this.#delay();
    const effectiveAt = this.#timeline.now + delay;
    const versions = this.#policies.get(name) ?? [];
    versions.push({ seq: this.#seq++, document, effectiveAt });
    this.#policies.set(name, versions);
    this.#timeline.after(delay, () => {
      this.#forget(versions);
      this.#changed();
    });
    return effectiveAt;
  }

  /** As IAM shows them. */
  shown(): ReadonlyMap<string, string> {
    return this.#standing(() => true);
  }

  /** Those that decide now. */
  deciding(): readonly string[] {
    return [...this.#standing(({ effectiveAt }) => effectiveAt <= this.#timeline.now).values()];
  }

  /** Without the policy of that name, whose next document has room beside the rest. */
  size(without: string): number {
    return [...this.shown()].reduce((sum, [name, { length }]) => sum + (name === without ? 0 : length), this.others);
  }

  #standing(counts: (version: Version) => boolean): ReadonlyMap<string, string> {
    const found = new Map<string, string>();
    for (const [name, versions] of this.#policies) {
      const document = versions.findLast(counts)?.document;
      if (document !== undefined) found.set(name, document);
    }
    return found;
  }

  /** What an arrived later one has replaced for good. */
  #forget(versions: Version[]): void {
    const arrived = versions.findLastIndex(({ effectiveAt }) => effectiveAt <= this.#timeline.now);
    if (arrived > 0) versions.splice(0, arrived);
  }
}
