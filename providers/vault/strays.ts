import { createHash } from 'node:crypto';
import type { Found } from '../../src/provider.ts';
import { markSchema } from './handle.ts';
import type { Target } from './target.ts';
import type { KnownToken } from './tokens.ts';

/**
 * Tokens that were made by our role and bear no mark of ours: by an agent whose policies let it, or by somebody else. No end of a grant
 * takes them along, so that a person must look.
 */
export class Strays {
  readonly #target: Target;
  /** Accessors. */
  readonly #seen = new Set<string>();

  constructor(target: Target) {
    this.#target = target;
  }

  /** Each is told of once. */
  see(accessor: string, { path, meta }: KnownToken): void {
    const { config, context } = this.#target;
    const own = `auth/token/create/${config.token_role}`;
    if ((path !== own && !path.startsWith(`${own}/`)) || markSchema.safeParse(meta).success) return;
    this.#seen.add(accessor);
    context.log(
      { alert: 'stray_token', stray: handleOf(accessor) },
      'a token was made by the role of the grants without a mark: no end of a grant ends it',
    );
  }

  /** Those that are among these, as nobody's. */
  among(accessors: ReadonlyMap<string, unknown>): readonly Found[] {
    for (const accessor of this.#seen) if (!accessors.has(accessor)) this.#seen.delete(accessor);
    const found = [...this.#seen].map((accessor) => ({
      ...{ handle: handleOf(accessor), grantId: null, installation: null, facts: { accessor } },
    }));
    return found.sort((a, b) => (a.handle < b.handle ? -1 : 1));
  }
}

/** Behind all handles of grants, in the order of a list. */
function handleOf(accessor: string): string {
  return `stray-${createHash('sha256').update(accessor).digest('hex').slice(0, 20)}`;
}
