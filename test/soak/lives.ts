import type { Ref } from '../../src/provider.ts';
import { type Ledger, soon } from '../contract/postgres-fixture.ts';
import { measureSizes, type Sizes, vacuum } from './size.ts';

export interface SoakOptions {
  readonly lives: number;
  /** Lives a second, at most. */
  readonly rate: number;
  readonly iterations: number;
  /** Called after each second or so. */
  onProgress?(done: number, seconds: number): void;
}

export interface Soaked {
  readonly before: Sizes;
  /** After the first half, aged, pruned and vacuumed as at the end. */
  readonly half: Sizes;
  /** When the last life was over: before anything was aged or vacuumed. */
  readonly full: Sizes;
  readonly after: Sizes;
  readonly perSecond: number;
  readonly sessions: number;
  readonly overtaken: number;
}

/** Lives that begin, and end, together. */
const batch = 50;
/** One in so many has an agent logged in when it ends; one in so many is ended before its mint comes. */
const withSession = 25;
const overtakenOne = 50;
/** Batches under way at once: while one is swept, another is minted. */
const lanes = 3;

/**
 * Plays so many lives on one target, through the provider's session: mint, some log in, fence, verify, reap, verify. After
 * the first half and at the end the rows that only wait for their time are made to be due, pruned, and everything is vacuumed.
 * @throws Error when any life does not end clean.
 */
export async function soak(ledger: Ledger, options: SoakOptions): Promise<Soaked> {
  const session = ledger.connect({ scram_iterations: options.iterations, max_connections: 20 });
  // The first life makes what stays: connections, statistics.
  await play(ledger, session, 1);
  await ageAndPrune(ledger, session);
  await vacuum(ledger);
  const before = await measureSizes(ledger);
  let done = 0;
  let millis = 0;
  let sessions = 0;
  let overtaken = 0;
  const playAll = async (lives: number): Promise<void> => {
    const started = performance.now();
    let begun = 0;
    const lane = async (): Promise<void> => {
      while (begun < lives) {
        const count = Math.min(batch, lives - begun);
        const due = started + (begun / options.rate) * 1000;
        begun += count;
        const early = due - performance.now();
        if (early > 0) await new Promise((resolve) => setTimeout(resolve, early));
        const played = await play(ledger, session, count);
        done += count;
        sessions += played.sessions;
        overtaken += played.overtaken;
        options.onProgress?.(done, (millis + performance.now() - started) / 1000);
      }
    };
    await Promise.all(Array.from({ length: lanes }, lane));
    millis += performance.now() - started;
  };
  const clear = async (): Promise<Sizes> => {
    await ageAndPrune(ledger, session);
    await vacuum(ledger);
    return await measureSizes(ledger);
  };
  const first = Math.floor(options.lives / 2);
  await playAll(first);
  const half = await clear();
  await playAll(options.lives - first);
  const full = await measureSizes(ledger);
  const after = await clear();
  await session.close();
  return { before, half, full, after, perSecond: (done / millis) * 1000, sessions, overtaken };
}

async function play(
  ledger: Ledger,
  session: Ledger['session'],
  count: number,
): Promise<{ sessions: number; overtaken: number }> {
  const asked = Array.from({ length: count }, () => ledger.ref());
  const late = asked.filter((_, index) => index % overtakenOne === overtakenOne - 1);
  const agents: { end(): Promise<void> }[] = [];
  const refs: Ref[] = await Promise.all(
    asked.map(async (ref, index) => {
      if (late.includes(ref)) return ref;
      const minted = await session.mint(ref, ledger.request(ref), soon(60_000));
      if (index % withSession === 1) agents.push(await ledger.login(minted));
      return { ...ref, facts: minted.facts };
    }),
  );
  await all('fence', session.fence(refs, soon(60_000)));
  await all('verify', session.verify(refs, soon(60_000)), ({ contained }) => contained);
  await all('reap', session.reap(refs, soon(60_000)));
  await all('verify', session.verify(refs, soon(60_000)), ({ clean }) => clean);
  for (const ref of late) {
    const minted = await session.mint(ref, ledger.request(ref), soon(60_000)).then(
      () => true,
      () => false,
    );
    if (minted) throw new Error('a mint came after its end and was not refused');
  }
  await Promise.all(agents.map((agent) => agent.end().catch(() => {})));
  return { sessions: agents.length, overtaken: late.length };
}

async function all<T extends { readonly ok: boolean }>(
  step: string,
  work: Promise<readonly T[]>,
  right: (outcome: Extract<T, { ok: true }>) => boolean = () => true,
): Promise<void> {
  for (const outcome of await work) {
    const good = outcome.ok && right(outcome as Extract<T, { ok: true }>);
    if (!good) throw new Error(`${step}: ${JSON.stringify(outcome)}`);
  }
}

/** Rows wait for a mint that could still be on its way: a minute, or ten. Nothing here is on its way any more. */
async function ageAndPrune(ledger: Ledger, session: Ledger['session']): Promise<void> {
  await ledger.admin(`UPDATE mayfly.handle SET keep_until = clock_timestamp() - interval '1 s'
                      WHERE role_oid IS NULL OR dropped_at IS NOT NULL`);
  for (;;) {
    const due = await ledger.admin(
      'SELECT FROM mayfly.handle WHERE (role_oid IS NULL OR dropped_at IS NOT NULL) AND keep_until < clock_timestamp() LIMIT 1',
    );
    if (due.length === 0) return;
    await session.reap([ledger.ref()], soon());
  }
}
