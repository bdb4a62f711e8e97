import type { ActiveCatalog } from '../catalog/active.ts';
import { cedarWorks } from '../policy/cedar.ts';
import type { ReadyPart } from './deps.ts';

export interface ReadyPartsOptions {
  readonly schema: () => Promise<{ readonly missing: readonly string[] }>;
  readonly activeRevision: () => Promise<number | null>;
  readonly catalog: Pick<ActiveCatalog, 'ready' | 'current'>;
  readonly sweepAge: () => number;
  readonly sweepSeconds: number;
  readonly draining: () => boolean;
}

/** Every part that must work before callers are sent to this replica. */
export function readyParts(options: ReadyPartsOptions): () => Promise<readonly ReadyPart[]> {
  const { schema, activeRevision, catalog, sweepAge, sweepSeconds, draining } = options;
  return async () => [
    { part: 'store', ...(await answers(async () => sayMissing((await schema()).missing))) },
    { part: 'catalog', ...(await answers(async () => sayRevision(await activeRevision(), catalog))) },
    { part: 'policy', ok: cedarWorks(), says: 'the policy engine has failed; restart this replica' },
    { part: 'sweeper', ok: sweepAge() < 3 * sweepSeconds + 10, says: 'the last sweep is too long ago' },
    { part: 'shutdown', ok: !draining(), says: 'the broker is shutting down' },
  ];
}

function sayRevision(active: number | null, catalog: ReadyPartsOptions['catalog']): string {
  if (active === null || !catalog.ready) return 'no catalog is active yet';
  return catalog.current().number === active ? '' : 'the active catalog is not loaded here';
}

function sayMissing(missing: readonly string[]): string {
  return missing.length > 0 ? `the schema lacks ${missing.join(', ')}` : '';
}

async function answers(look: () => Promise<string>): Promise<{ ok: boolean; says: string }> {
  try {
    const says = await look();
    return { ok: says === '', says };
  } catch {
    return { ok: false, says: 'the store does not answer' };
  }
}
