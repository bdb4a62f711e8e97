import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { Secret } from '../domain/secret.ts';
import { Database } from '../store/database.ts';
import { Heartbeat } from './heartbeat.ts';

const db = new Database({ url: new Secret('postgres://nobody@127.0.0.1:1/none'), connections: 1, onError: () => {} });
const BEAT = 1_500;

beforeEach(() => {
  vi.useFakeTimers();
});
afterEach(() => {
  vi.useRealTimers();
});

test('while claims are held the batch goes on; when all are lost it is aborted', async () => {
  const query = vi
    .spyOn(db, 'query')
    .mockResolvedValueOnce([{ held: 1 }])
    .mockResolvedValue([{ held: 0 }]);
  const heartbeat = new Heartbeat({ db, log: () => {} }, []);
  await vi.advanceTimersByTimeAsync(BEAT);
  expect(heartbeat.signal.aborted).toBe(false);
  await vi.advanceTimersByTimeAsync(BEAT);
  expect(query).toHaveBeenCalledTimes(2);
  expect(heartbeat.signal.reason).toMatchObject({ errorClass: 'retryable', message: 'The claim was lost.' });
  heartbeat.stop();
});

test('a beat that is answered after the stop aborts nothing, and none follows', async () => {
  let answer: (rows: { held: number }[]) => void = () => {};
  const query = vi.spyOn(db, 'query').mockReturnValue(new Promise((resolve) => (answer = resolve)));
  const heartbeat = new Heartbeat({ db, log: () => {} }, []);
  await vi.advanceTimersByTimeAsync(BEAT);
  heartbeat.stop();
  answer([{ held: 0 }]);
  await vi.advanceTimersByTimeAsync(3 * BEAT);
  expect(query).toHaveBeenCalledTimes(1);
  expect(heartbeat.signal.aborted).toBe(false);
});

test('without the store the batch goes on, and the log says so', async () => {
  vi.spyOn(db, 'query').mockRejectedValue(new Error('no store'));
  const log = vi.fn<(event: object, message: string) => void>();
  const heartbeat = new Heartbeat({ db, log }, []);
  await vi.advanceTimersByTimeAsync(2 * BEAT);
  heartbeat.stop();
  expect(log).toHaveBeenCalledTimes(2);
  expect(log.mock.calls[0]?.[0]).toEqual({ error: new Error('no store') });
  expect(heartbeat.signal.aborted).toBe(false);
});
