import { z } from 'zod';
import { ProviderError } from '../../src/provider.ts';
import { unreadable } from './errors.ts';
import { beginOf, type Mark, markSchema } from './handle.ts';
import { each } from './each.ts';
import { Strays } from './strays.ts';
import { type KnownToken, lookUp } from './tokens.ts';
import type { Lane, Target } from './target.ts';

/** Lookups at once. */
const width = 16;

const selfSchema = z.object({ data: z.object({ accessor: z.string() }) });
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

  readonly #strays: Strays;

  constructor(target: Target) {
    this.#target = target;
    this.#strays = new Strays(target);
  }

  /** Of those that were there at the last look: made by our role, and nobody's. */
  get strays(): ReturnType<Strays['among']> {
    return this.#strays.among(this.#known);
  }

  /** All that are there now. @throws ProviderError */
  async read(signal: AbortSignal, lane = this.#target.revoking): Promise<readonly Marked[]> {
    const doing = 'listing tokens';
    const own = await this.#own(lane, signal);
    const received = await lane.call(doing, { method: 'LIST', path: 'auth/token/accessors' }, signal, [200, 404]);
    const parsed = keysSchema.safeParse(received.body);
    if (received.status === 200 && !parsed.success) throw unreadable(doing);
    const accessors = new Set(parsed.success ? parsed.data.data.keys : []);
    // Who asks has a token. A list without it is not that of all tokens, and what is not in it is not gone.
    if (!accessors.has(own)) throw new ProviderError('retryable', `${doing}: the broker's own is not among them`);
    for (const accessor of this.#known.keys()) if (!accessors.has(accessor)) this.#known.delete(accessor);
    const unknown = [...accessors].filter((accessor) => !this.#known.has(accessor));
    await each(unknown, width, async (accessor) => {
      const token = await this.#lookUp(accessor, lane, signal);
      // Gone since: it is looked for again if it is listed again.
      if (token === null) return;
      this.#known.set(accessor, this.#markedBy(accessor, token));
      this.#strays.see(accessor, token);
    });
    return [...this.#known.values()].filter((one) => one !== null);
  }

  async #own(lane: Lane, signal: AbortSignal): Promise<string> {
    const doing = 'looking up its own token';
    const call = { method: 'GET', path: 'auth/token/lookup-self' } as const;
    const parsed = selfSchema.safeParse((await lane.call(doing, call, signal, [200])).body);
    if (!parsed.success) throw unreadable(doing);
    return parsed.data.data.accessor;
  }

  /** One that can not be read, of whoever it is, does not hide the others: none that we make is like that. */
  async #lookUp(accessor: string, lane: Lane, signal: AbortSignal): Promise<KnownToken | null> {
    try {
      return await lookUp(this.#target, accessor, signal, lane);
    } catch (error) {
      if (!(error instanceof ProviderError) || error.wholeTarget || error.errorClass === 'denied') throw error;
      this.#target.context.log({ says: error.message }, 'a token can not be looked up, and is left out');
      return null;
    }
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
      handle: this.#handleOf(mark),
      grantId: mark.mayfly_grant,
      policies: token.policies,
      mark,
    };
  }

  /** As it was intended, which may have been at another place than we have now. */
  #handleOf({ mayfly_grant: grantId, mayfly_handle: handle }: Mark): string {
    const begin = beginOf(grantId);
    return handle === undefined || !handle.startsWith(begin) ? begin : handle;
  }
}
