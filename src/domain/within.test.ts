import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { expect, test } from 'vitest';
import { within } from './within.ts';

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
  expect(await fired).toMatchObject({ name: 'TimeoutError' });
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
