import { z } from 'zod';
import { unreadable } from './errors.ts';
import { handleOf, type Mark, markSchema } from './handle.ts';
import { each } from './each.ts';
import { type KnownToken, lookUp } from './tokens.ts';
import type { Target } from './target.ts';

/** Lookups at once. */
const width = 8;

const keysSchema = z.object({ data: z.object({ keys: z.array(z.string()) }) });

/** A token that bears our mark. */
export interface Marked {
  readonly accessor: string;
  readonly handle: string;
  readonly grantId: string;
  readonly policies: readonly string[];
  readonly mark: Mark;
}

/**
 * Which tokens bear our mark. Vault finds a token by its accessor alone, so each is looked at: once, since neither its metadata nor
 * its path ever changes. A look that is cut short has not been in vain: the next goes on where it was.
 */
export class Inventory {
  readonly #target: Target;
  /** By accessor; null for another's. */
  readonly #known = new Map<string, Marked | null>();

  constructor(target: Target) {
    this.#target = target;
  }

  /** All that are there now. @throws ProviderError */
  async read(signal: AbortSignal): Promise<readonly Marked[]> {
    const doing = 'listing tokens';
    const received = await this.#target.revoking.call(
      doing,
      { method: 'LIST', path: 'auth/token/accessors' },
      signal,
      [200, 404],
    );
    const parsed = keysSchema.safeParse(received.body);
    if (received.status === 200 && !parsed.success) throw unreadable(doing);
    const accessors = new Set(parsed.success ? parsed.data.data.keys : []);
    for (const accessor of this.#known.keys()) if (!accessors.has(accessor)) this.#known.delete(accessor);
    const unknown = [...accessors].filter((accessor) => !this.#known.has(accessor));
    await each(unknown, width, async (accessor) => {
      const token = await lookUp(this.#target, accessor, signal);
      // Gone since: it is looked for again if it is listed again.
      if (token === null) return;
      this.#known.set(accessor, this.#markedBy(accessor, token));
    });
    return [...this.#known.values()].filter((one) => one !== null);
  }

  /** Metadata can be given by whoever makes a token; the path only by who may use our role. */
  #markedBy(accessor: string, token: KnownToken): Marked | null {
    const { config, context } = this.#target;
    const parsed = markSchema.safeParse(token.meta);
    if (!parsed.success || token.path !== `auth/token/create/${config.token_role}`) return null;
    const mark = parsed.data;
    if (mark.mayfly_installation !== context.installation || mark.mayfly_target !== context.target) return null;
    if (!/^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/.test(mark.mayfly_grant)) return null;
    return {
      accessor,
      handle: handleOf(mark.mayfly_grant),
      grantId: mark.mayfly_grant,
      policies: token.policies,
      mark,
    };
  }
}
