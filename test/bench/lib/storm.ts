import { setTimeout as pause } from 'node:timers/promises';
import type { House } from '../../support/house.ts';
import { call } from './http.ts';
import { measure } from './report.ts';

const GRANTS_PER_TASK = 100;

/** Seconds from the one deadline. */
export interface Storm {
  readonly contained: number;
  readonly clean: number;
  /** Lateness, in milliseconds. */
  readonly p50: number;
  readonly p99: number;
  readonly longest: number;
}

/** Grants with one deadline, so many seconds from now: the moment is the answer. They must have been made by then. */
export async function grantsOfOneMoment(
  house: House,
  token: string,
  { count, seconds }: { readonly count: number; readonly seconds: number },
): Promise<Date> {
  const due = new Date(Math.ceil(Date.now() / 1000) * 1000 + seconds * 1000);
  const tasks: string[] = [];
  await measure(Math.ceil(count / GRANTS_PER_TASK), 8, async () => {
    const ttl = Math.round((due.getTime() - Date.now()) / 1000) + 5;
    const opened = await call('POST', `${house.url}/v1/tasks`, token, { request: await house.sign({ ttl }) });
    tasks.push((opened.body['task'] as { id: string }).id);
  });
  await measure(count, 16, async (index) => issue(house, token, tasks[index % tasks.length] ?? '', 'ledger-db'));
  // Requests are signed by the second: the one instant is set in the store, a little before the tasks end.
  await house.onStore(`UPDATE mayfly.revocations SET due_at = $1, try_at = $1 WHERE state = 'scheduled'`, [due]);
  await house.onStore(`UPDATE mayfly.grants SET deadline = $1 WHERE state = 'active'`, [due]);
  return due;
}

/** @throws Error when it has passed: then what was to be measured has begun. */
export async function untilMoment(due: Date): Promise<void> {
  const left = due.getTime() - Date.now();
  if (left < 0) throw new Error(`The storm began ${-left} ms too early: what comes before it took too long.`);
  await pause(left);
}

export async function issue(house: House, token: string, task: string, target: string): Promise<void> {
  const { status, body } = await call('POST', `${house.url}/v1/tasks/${task}/grants`, token, {
    entitlement: `${target}/read-invoices`,
  });
  if (status !== 201) throw new Error(`${status} ${JSON.stringify(body)}`);
}

/** Waits until all that fell due at that moment are clean. */
export async function watchStorm(house: House, due: Date, count: number): Promise<Storm> {
  for (;;) {
    const [state] = await house.onStore<Storm & { left: number; all: number }>(
      `SELECT count(*)::int AS all, (count(*) FILTER (WHERE clean_at IS NULL))::int AS left,
        extract(epoch FROM max(contained_at) - $1)::float8 AS contained, extract(epoch FROM max(clean_at) - $1)::float8 AS clean,
        (extract(epoch FROM max(contained_at) - $1) * 1000)::float8 AS longest,
        (percentile_disc(0.5) WITHIN GROUP (ORDER BY extract(epoch FROM contained_at - $1)) * 1000)::float8 AS p50,
        (percentile_disc(0.99) WITHIN GROUP (ORDER BY extract(epoch FROM contained_at - $1)) * 1000)::float8 AS p99
       FROM mayfly.revocations WHERE due_at = $1`,
      [due],
    );
    if (state === undefined || state.all !== count) throw new Error(`${state?.all} of ${count} grants fell due.`);
    if (state.left === 0) return state;
    await pause(250);
  }
}
