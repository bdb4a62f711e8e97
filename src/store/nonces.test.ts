import { describe, expect, test } from 'vitest';
import type { Queryable, Statement } from './database.ts';
import { SharedNonces } from './nonces.ts';

/** A store whose clock stands still, and what was asked of it. */
class TestStore implements Queryable {
  minute = 100;
  leftMillis = 20_000;
  down = false;
  readonly rows = new Map<number, string>();
  readonly asked: string[] = [];
  /** Called before an answer to `begin_nonce`. */
  meanwhile = () => {};

  async query<R extends Record<string, unknown>>({ name = '', values }: Statement): Promise<R[]> {
    this.asked.push(name);
    await Promise.resolve();
    if (this.down) throw new Error('down');
    return this.#answer(name, values) as R[];
  }

  #answer(name: string, [value]: readonly unknown[]): object[] {
    if (name === 'find_nonces') {
      const minutes = [0, 1, 2].map((back) => this.minute - back).filter((minute) => this.rows.has(minute));
      const nonces = minutes.map((minute) => this.rows.get(minute));
      return [{ nonces, begun: this.rows.has(this.minute), left_millis: this.leftMillis }];
    }
    this.meanwhile();
    if (name !== 'begin_nonce' || this.rows.has(this.minute)) return [];
    this.rows.set(this.minute, String(value));
    return [{}];
  }

  looks(): number {
    return this.asked.filter((name) => name === 'find_nonces').length;
  }
}

function openNonces() {
  const store = new TestStore();
  const time = { ms: 5_000 };
  return { store, time, nonces: new SharedNonces(store, () => time.ms) };
}

describe('the nonces of a replica', () => {
  test('are made where there is none yet: 256 random bits, another for each minute', async () => {
    const { store, time, nonces } = openNonces();
    const first = await nonces.current();
    expect(first).toMatch(/^[A-Za-z0-9_-]{43}$/);
    store.minute += 1;
    time.ms += store.leftMillis;
    expect(await nonces.current()).not.toBe(first);
    expect(store.rows.size).toBe(2);
  });

  test('are those of the replica that was first', async () => {
    const { store, nonces } = openNonces();
    store.meanwhile = () => void (store.rows.has(100) || store.rows.set(100, 'theirs'));
    expect(await nonces.current()).toBe('theirs');
    expect(store.asked).toEqual(['find_nonces', 'begin_nonce', 'find_nonces']);
  });

  test('are taken for two minutes after their own, and then no more', async () => {
    const { store, time, nonces } = openNonces();
    const nonce = await nonces.current();
    for (const taken of [true, true, true, false]) {
      expect(await nonces.takes(nonce)).toBe(taken);
      store.minute += 1;
      time.ms += 60_000;
    }
  });

  test('cost one look at the store a minute, however many ask', async () => {
    const { store, time, nonces } = openNonces();
    store.rows.set(100, 'n-100');
    await Promise.all(Array.from({ length: 50 }, () => nonces.current()));
    time.ms += store.leftMillis - 1;
    for (let n = 0; n < 50; n++) expect(await nonces.takes('n-100')).toBe(true);
    expect(store.looks()).toBe(1);
    time.ms += 1;
    await Promise.all(Array.from({ length: 50 }, () => nonces.takes('n-100')));
    expect(store.looks()).toBe(2);
  });

  test('of another replica that began the minute earlier are found by one look more', async () => {
    const { store, time, nonces } = openNonces();
    store.rows.set(100, 'n-100');
    await nonces.current();
    store.minute = 101;
    store.rows.set(101, 'n-101');
    time.ms += 1_000;
    expect(await nonces.takes('n-101')).toBe(true);
    expect(await nonces.current()).toBe('n-101');
  });

  test('that nobody gave cost one look a second, however many come', async () => {
    const { store, time, nonces } = openNonces();
    store.rows.set(100, 'n-100');
    await nonces.current();
    for (const looks of [1, 2, 3]) {
      const taken = await Promise.all(Array.from({ length: 50 }, (_, n) => nonces.takes(`made-up-${n}`)));
      expect(taken).not.toContain(true);
      expect(await nonces.takes('made-up')).toBe(false);
      expect(store.looks()).toBe(looks);
      time.ms += 1_000;
    }
  });

  test('are asked for again after the store was away', async () => {
    const { store, nonces } = openNonces();
    store.rows.set(100, 'n-100');
    store.down = true;
    await expect(nonces.takes('n-100')).rejects.toThrow('down');
    store.down = false;
    expect(await nonces.takes('n-100')).toBe(true);
  });
});
