import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { expect, test, vi } from 'vitest';
import { bounded, orAborted, timed, within } from './within.ts';

function fires(signal: AbortSignal): Promise<unknown> {
  return new Promise((resolve) => {
    signal.addEventListener('abort', () => resolve(signal.reason), { once: true });
  });
}

test('fires when the time is up, also when garbage was collected in between', async () => {
  setFlagsFromString('--expose-gc');
  const collect = runInNewContext('gc') as () => void;
  const fired = fires(within(60, new AbortController().signal));
  for (let round = 0; round < 5; round++) {
    await new Promise((resolve) => setImmediate(resolve));
    collect();
  }
  // The test's own time-out is what notices a signal that never fires.
  const wait = setInterval(() => {}, 10);
  expect(await fired).toMatchObject({ name: 'TimeoutError', message: 'The operation was aborted due to timeout' });
  clearInterval(wait);
});

test('fires with any of the others, for their reason', async () => {
  const other = new AbortController();
  const signal = within(60_000, new AbortController().signal, other.signal);
  const fired = fires(signal);
  other.abort('closing');
  expect(await fired).toBe('closing');
  expect(within(60_000, other.signal).aborted).toBe(true);
});

test('a call has its answer, and its signal is told when the time is up', async () => {
  expect(await bounded(60_000, [], async (signal) => signal.aborted)).toBe(false);
  const told: unknown[] = [];
  const hung = bounded(20, [], async (signal) => {
    signal.addEventListener('abort', () => told.push(signal.reason));
    return await new Promise<never>(() => {});
  });
  const wait = setInterval(() => {}, 10);
  await expect(hung).rejects.toMatchObject({ name: 'TimeoutError' });
  clearInterval(wait);
  expect(told).toHaveLength(1);
});

test('a call whose signal has fired is left behind at once, for the reason that was given', async () => {
  const never = new Promise<never>(() => {});
  await expect(orAborted(never, AbortSignal.abort(new Error('closing')))).rejects.toThrow('closing');
  await expect(orAborted(never, AbortSignal.abort('no error'))).rejects.toThrow('aborted');
});

test('a signal that outlives the call is let go of', async () => {
  const { signal } = new AbortController();
  const heard = { add: vi.spyOn(signal, 'addEventListener'), remove: vi.spyOn(signal, 'removeEventListener') };
  expect(await orAborted(Promise.resolve('done'), signal)).toBe('done');
  expect(heard.remove.mock.calls.map(([type, listener]) => [type, listener])).toEqual(
    heard.add.mock.calls.map(([type, listener]) => [type, listener]),
  );
});

test('a call that is made often has its answer, its own failure, or the end of its time', async () => {
  let told: AbortSignal | undefined;
  expect(
    await timed(60_000, async (signal) => {
      told = signal;
      return 'done';
    }),
  ).toBe('done');
  expect(told?.aborted).toBe(false);
  await expect(timed(60_000, async () => Promise.reject(new Error('refused')))).rejects.toThrow('refused');
  const wait = setInterval(() => {}, 10);
  const hung = timed(20, async (signal) => {
    told = signal;
    return await new Promise<never>(() => {});
  });
  await expect(hung).rejects.toMatchObject({ name: 'TimeoutError' });
  clearInterval(wait);
  expect(told?.aborted).toBe(true);
});
