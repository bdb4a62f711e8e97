import { setTimeout as pause } from 'node:timers/promises';
import type { House } from '../../support/house.ts';
import { call } from './http.ts';
import { measure } from './report.ts';

const ENTITLEMENT = 'ledger-db/read-invoices';
/** What the entitlement and the policy of a benchmark allow. */
const LONGEST_SECONDS = 600;

export interface MintOptions {
  readonly count: number;
  readonly concurrency?: number;
  /** By the index of the grant; default: the longest that is allowed. */
  readonly ttlSeconds?: (index: number) => number;
}

export interface Held {
  readonly task: string;
  /** Bare UUIDs, as the store has them. */
  readonly grants: readonly string[];
}

/** One task with so many grants, each minted by a call of its own. */
export async function holdGrants(house: House, token: string, options: MintOptions): Promise<Held> {
  const opened = await call('POST', `${house.url}/v1/tasks`, token, { request: await house.sign({ ttl: 3_000 }) });
  if (opened.status !== 201) throw new Error(`${opened.status} ${JSON.stringify(opened.body)}`);
  const task = (opened.body['task'] as { id: string }).id;
  const grants: string[] = [];
  await measure(options.count, options.concurrency ?? 8, async (index) => {
    const { status, body } = await call('POST', `${house.url}/v1/tasks/${task}/grants`, token, {
      entitlement: ENTITLEMENT,
      ...(options.ttlSeconds === undefined ? {} : { ttl_seconds: options.ttlSeconds(index) }),
    });
    if (status !== 201) throw new Error(`${status} ${JSON.stringify(body)}`);
    grants.push((body['grant'] as { id: string }).id.slice('grt_'.length));
  });
  return { task, grants };
}

/** A broker that has just started still compiles its code. Answers how many milliseconds each mint took of the whole. */
export async function warmUp(house: House, token: string, count = 300): Promise<number> {
  for (let round = 1; ; round++) {
    const started = performance.now();
    const { task, grants } = await holdGrants(house, token, { count });
    const millis = (performance.now() - started) / count;
    await call('POST', `${house.url}/v1/tasks/${task}/complete?wait=60`, token, {});
    await untilAll(house, grants, 'clean');
    if (round === 2) return millis;
  }
}

export interface SpreadOptions {
  readonly perSecond: number;
  readonly seconds: number;
  /** What `warmUp` answered. */
  readonly mintMillis: number;
}

/**
 * Grants that fall due at an even rate, all of them minted before the first does. A TTL is whole seconds, so each grant is given
 * the one that leads into its second of the window, and the seconds take turns: within its second a deadline is as random as the
 * moment of its mint.
 * @throws Error when minting took so long that it would have disturbed what is measured.
 */
export async function spreadGrants(house: House, token: string, options: SpreadOptions): Promise<readonly string[]> {
  const { perSecond, seconds, mintMillis } = options;
  const count = perSecond * seconds;
  const ahead = 2 * count * mintMillis + 5_000;
  if (ahead + seconds * 1000 > LONGEST_SECONDS * 1000) throw new Error('too slow here to mint so many beforehand');
  const begins = Date.now() + ahead;
  const ttlSeconds = (index: number) => Math.ceil((begins - Date.now()) / 1000) + (index % seconds);
  const { grants } = await holdGrants(house, token, { count, ttlSeconds });
  if (Date.now() > begins - 1_000) throw new Error('minting took too long: what was to be measured had begun');
  return grants;
}

/** Waits until all of these are in that state. */
export async function untilAll(
  house: House,
  grants: readonly string[],
  state: 'contained' | 'clean',
  everyMillis = 250,
): Promise<void> {
  for (;;) {
    const [row] = await house.onStore<{ left: number }>(
      `SELECT count(*)::int AS left FROM mayfly.revocations WHERE grant_id = ANY($1) AND ${state}_at IS NULL`,
      [grants],
    );
    if (row?.left === 0) return;
    await pause(everyMillis);
  }
}
