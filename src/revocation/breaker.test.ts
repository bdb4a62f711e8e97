import { describe, expect, test } from 'vitest';
import { Breaker } from './breaker.ts';

function start(random = 1) {
  let now = 0;
  const breaker = new Breaker(
    () => now,
    () => random,
  );
  return {
    breaker,
    pass: (millis: number) => {
      now += millis;
    },
  };
}

function fail(breaker: Breaker, times: number): void {
  for (let n = 0; n < times; n += 1) breaker.silent();
}

describe('a breaker', () => {
  test('lets everything through while the target answers, also after single silences', () => {
    const { breaker } = start();
    for (let n = 0; n < 10; n += 1) {
      fail(breaker, 2);
      expect(breaker.state).toBe('closed');
      expect(breaker.ask()).toEqual({ may: 'try' });
      breaker.answered();
    }
    expect(breaker.ask()).toEqual({ may: 'try' });
  });

  test('pauses for half as long at least, by chance', () => {
    const { breaker, pass } = start(0);
    fail(breaker, 3);
    pass(249);
    expect(breaker.ask()).toMatchObject({ may: 'wait' });
    pass(1);
    expect(breaker.ask()).toEqual({ may: 'probe' });
  });

  test('lets nothing through after three silences in a row, and one probe after a pause', () => {
    const { breaker, pass } = start();
    fail(breaker, 3);
    expect(breaker.state).toBe('open');
    expect(breaker.ask()).toEqual({ may: 'wait', millis: 500 });
    pass(499);
    expect(breaker.ask()).toMatchObject({ may: 'wait' });
    pass(1);
    expect(breaker.ask()).toEqual({ may: 'probe' });
    expect(breaker.state).toBe('probing');
    expect(breaker.ask()).toMatchObject({ may: 'wait' });
  });

  test('closes at an answer, be it to something that was still under way', () => {
    const { breaker, pass } = start();
    fail(breaker, 3);
    pass(500);
    breaker.ask();
    breaker.answered();
    expect(breaker.ask()).toEqual({ may: 'try' });
    fail(breaker, 3);
    breaker.answered();
    expect(breaker.state).toBe('closed');
  });

  test('waits longer after each silent probe, ten seconds at most; what was under way adds nothing', () => {
    const { breaker, pass } = start();
    fail(breaker, 7);
    const pauses: number[] = [];
    for (let n = 0; n < 8; n += 1) {
      const asked = breaker.ask();
      if (asked.may !== 'wait') throw new Error('It does not wait.');
      pauses.push(asked.millis);
      pass(asked.millis);
      expect(breaker.ask()).toEqual({ may: 'probe' });
      breaker.silent();
    }
    expect(pauses).toEqual([500, 1000, 2000, 4000, 8000, 10_000, 10_000, 10_000]);
  });

  test('of a target that comes and goes goes on with the longer pauses; one that was well for a minute begins anew', () => {
    const { breaker, pass } = start();
    const openAgain = () => {
      fail(breaker, 3);
      const asked = breaker.ask();
      if (asked.may !== 'wait') throw new Error('It does not wait.');
      pass(asked.millis);
      breaker.ask();
      breaker.answered();
      return asked.millis;
    };
    expect([openAgain(), openAgain(), openAgain()]).toEqual([500, 1000, 2000]);
    pass(60_000);
    expect(openAgain()).toBe(4_000);
    pass(60_001);
    expect(openAgain()).toBe(500);
  });

  test('that had nothing to probe with may probe again at once', () => {
    const { breaker, pass } = start();
    breaker.abstained();
    expect(breaker.state).toBe('closed');
    fail(breaker, 3);
    pass(500);
    breaker.ask();
    breaker.abstained();
    expect(breaker.state).toBe('open');
    expect(breaker.ask()).toEqual({ may: 'probe' });
  });
});
