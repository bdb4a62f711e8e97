import { MayflyError } from '../domain/errors.ts';
import type { Database } from './database.ts';
import { findInstallation } from './installation.ts';
import type { compareSchema } from './migrate.ts';
import { checkRuntimeLogin } from './runtime-login.ts';

/** @throws Error, in a sentence, when this store is not one that this release and mode may work on. */
export async function checkStore(
  db: Database,
  schema: () => ReturnType<typeof compareSchema>,
  options: { readonly dev: boolean },
) {
  const compared = await schema().catch((cause: unknown) => {
    if (cause instanceof MayflyError) throw cause;
    throw new Error('The store has no schema of ours: run `mayfly migrate` first.', { cause });
  });
  if (compared.newer.length > 0)
    throw new Error(`The store is newer than this release: it has ${compared.newer.join(', ')}.`);
  if (compared.missing.length > 0)
    throw new Error(
      `The store is older than this release: run \`mayfly migrate\` (missing: ${compared.missing.join(', ')}).`,
    );
  const installation = await findInstallation(db);
  if (installation === undefined) throw new Error('The store was never initialised: run `mayfly migrate` first.');
  if (installation.dev !== options.dev) {
    throw new Error(
      options.dev
        ? 'This store was not made by `mayfly dev`: dev mode works on its own store only.'
        : 'This store was made by `mayfly dev`: it trusts keys that lie about in a folder. Use a store of your own.',
    );
  }
  await checkRuntimeLogin(db);
  return installation;
}
