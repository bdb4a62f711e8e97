import { afterEach, describe, expect, test, vi } from 'vitest';
import { ProviderError, type Ref } from '../provider.ts';
import { askEach, storable } from './answers.ts';

const never = new AbortController().signal;

test.each([[[]], [['a', 'b', 'c']], ['ab'], [null], [undefined]])('%j for two is no answer', async (answer) => {
  await expect(askEach(refs(2), never, () => wrongly(answer))).rejects.toMatchObject({ errorClass: 'misconfigured' });
});

/** What a provider written without types may answer. */
async function wrongly(answer: unknown): Promise<never> {
  return answer as never;
}

function refs(count: number): Ref[] {
  return Array.from({ length: count }, (_, n) => ({
    ...{ grantId: String(n), handle: `h${n}`, facts: null, deadline: new Date(0) },
  }));
}

/** Does it for each, and counts how often it is asked. */
function honest(poison: (ref: Ref) => unknown) {
  const asked: number[] = [];
  const ask = async (some: readonly Ref[]) => {
    asked.push(some.length);
    for (const ref of some) if (poison(ref) !== undefined) throw poison(ref);
    return some.map(({ handle }) => ({ ok: true as const, handle }));
  };
  return { asked, ask };
}

test('two for two are an answer', async () => {
  expect(await askEach(refs(2), never, async (some) => some.map(({ handle }) => ({ handle })))).toEqual([
    { handle: 'h0' },
    { handle: 'h1' },
  ]);
});

test.each([[0], [7], [24], [49]])(
  'one of fifty that makes the call throw keeps its answer from nobody else: %i',
  async (bad) => {
    const { asked, ask } = honest(({ handle }) => (handle === `h${bad}` ? new TypeError('secret') : undefined));
    const answers = await askEach(refs(50), never, ask);
    expect(answers.map(({ ok }) => ok)).toEqual(refs(50).map((_, n) => n !== bad));
    expect(answers[bad]).toMatchObject({ ok: false, error: { errorClass: 'retryable', message: 'TypeError' } });
    expect(asked.length).toBeLessThanOrEqual(16);
  },
);

test('of some that make the call throw the others have their answers within a bounded number of calls', async () => {
  const bad = new Set(['h3', 'h20', 'h41']);
  const { asked, ask } = honest(({ handle }) => (bad.has(handle) ? new Error('bad') : undefined));
  const answers = await askEach(refs(50), never, ask);
  expect(answers.filter(({ ok }) => ok).length).toBeGreaterThan(40);
  expect(answers.some(({ ok }, n) => ok && bad.has(`h${n}`))).toBe(false);
  expect(asked.length).toBeLessThanOrEqual(27);
});

test('a target that serves nobody is asked for two alone, and throws', async () => {
  const { asked, ask } = honest(() => new ProviderError('denied', 'no'));
  await expect(askEach(refs(50), never, ask)).rejects.toThrow('no');
  expect(asked).toEqual([50, 1, 1]);
});

test('what is said of the target as a whole is not asked again', async () => {
  const { asked, ask } = honest(() => new ProviderError('retryable', 'down', { wholeTarget: true }));
  await expect(askEach(refs(50), never, ask)).rejects.toThrow('down');
  expect(asked).toEqual([50]);
});

test('answers in another order are nobody’s, where they say whose they are', async () => {
  const swapped = async (some: readonly Ref[]) =>
    some.toReversed().map(({ handle }) => ({ ok: handle === 'h0' ? ('first' as const) : ('second' as const), handle }));
  expect(await askEach(refs(2), never, swapped)).toEqual([
    { ok: 'first', handle: 'h0' },
    { ok: 'second', handle: 'h1' },
  ]);
  const foreign = async (some: readonly Ref[]) => some.map(() => ({ ok: true as const, handle: 'other' }));
  await expect(askEach(refs(2), never, foreign)).rejects.toMatchObject({ errorClass: 'misconfigured' });
});

test('a call that does not end when its claim is lost is left behind', async () => {
  const lost = new AbortController();
  const asked = askEach(refs(1), lost.signal, async () => await new Promise<never>(() => {}));
  lost.abort(new Error('lost'));
  await expect(asked).rejects.toThrow('lost');
});

describe('a call that fails', () => {
  afterEach(() => {
    vi.useRealTimers();
  });

  test('for one alone is not made again', async () => {
    const { asked, ask } = honest(() => new TypeError('no'));
    await expect(askEach(refs(1), never, ask)).rejects.toThrow('no');
    expect(asked).toEqual([1]);
  });

  test('for many at once is made for the first, the last, and those between', async () => {
    const asked: string[][] = [];
    const answers = await askEach(refs(4), never, async (some) => {
      asked.push(some.map(({ handle }) => handle));
      if (some.length > 3) throw new Error('too many');
      return some.map(({ handle }) => ({ ok: true as const, handle }));
    });
    expect(asked).toEqual([['h0', 'h1', 'h2', 'h3'], ['h0'], ['h3'], ['h1', 'h2']]);
    expect(answers).toEqual(refs(4).map(({ handle }) => ({ ok: true, handle })));
  });

  test('for one of three is made for each once, and that one keeps what was said of it alone', async () => {
    const asked: number[] = [];
    const answers = await askEach(refs(3), never, async (some) => {
      asked.push(some.length);
      if (some.length === 1 && some[0]?.handle === 'h1') throw new ProviderError('denied', 'May not.');
      if (some.length > 1) throw new Error('one of them');
      return some.map(({ handle }) => ({ ok: true as const, handle }));
    });
    expect(asked).toEqual([3, 1, 1, 1]);
    expect(answers[1]).toMatchObject({ ok: false, error: { errorClass: 'denied', message: 'May not.' } });
  });

  test('for the target as a whole in one of its parts fails as a whole', async () => {
    let calls = 0;
    const asked = askEach(refs(4), never, async () => {
      calls += 1;
      throw calls === 1 ? new Error('one of them') : new ProviderError('retryable', 'away', { wholeTarget: true });
    });
    await expect(asked).rejects.toThrow('away');
    expect(calls).toBe(2);
  });

  test.each([
    [new DOMException('late', 'TimeoutError'), [4]],
    [new DOMException('over', 'AbortError'), [4, 1, 1]],
    [Object.assign(new Error('late'), { name: 'TimeoutError' }), [4, 1, 1]],
  ])('by its time-out is not made again, but for another reason it is: %s', async (error, sizes) => {
    const { asked, ask } = honest(() => error);
    await expect(askEach(refs(4), never, ask)).rejects.toThrow(error.message);
    expect(asked).toEqual(sizes);
  });

  test('with no error says only that it failed', async () => {
    const { ask } = honest(({ handle }) => (handle === 'h0' ? 'secret' : undefined));
    const [first] = await askEach(refs(2), never, ask);
    expect(first).toMatchObject({ ok: false, error: { errorClass: 'retryable', message: 'failed' } });
  });

  test('once its claim is lost is not made again', async () => {
    const lost = new AbortController();
    const asked: number[] = [];
    const ending = askEach(refs(4), lost.signal, async (some) => {
      asked.push(some.length);
      lost.abort(new Error('lost'));
      throw new Error('one of them');
    });
    await expect(ending).rejects.toThrow(/^(lost|one of them)$/);
    expect(asked).toEqual([4]);
  });

  test('by its hanging is told so after fifteen seconds, and left a second later', async () => {
    vi.useFakeTimers();
    const told: AbortSignal[] = [];
    const ending = askEach(refs(1), never, async (_, signal) => {
      told.push(signal);
      return await new Promise<never>(() => {});
    });
    const left = ending.catch((error: unknown) => error);
    await vi.advanceTimersByTimeAsync(14_999);
    expect(told[0]?.aborted).toBe(false);
    await vi.advanceTimersByTimeAsync(1);
    expect(told[0]?.aborted).toBe(true);
    let isOver = false;
    void left.then(() => (isOver = true));
    await vi.advanceTimersByTimeAsync(999);
    expect(isOver).toBe(false);
    await vi.advanceTimersByTimeAsync(1);
    expect(await left).toMatchObject({ name: 'TimeoutError' });
  });
});

test('a wrong answer says what is wrong with it', async () => {
  const says = async (answer: unknown) => await askEach(refs(2), never, () => wrongly(answer)).catch(String);
  expect(await says(['a', 'b', 'c'])).toBe('ProviderError: The provider answered 3 for 2.');
  expect(await says('ab')).toBe('ProviderError: The provider answered string for 2.');
  expect(await says([{ handle: 'h0' }, { handle: 'other' }])).toBe(
    'ProviderError: The provider answered for another than it was asked about.',
  );
});

test('answers that do not say whose they are, or say nothing, are for who asked to judge', async () => {
  expect(await askEach(refs(2), never, () => wrongly([null, { ok: true }]))).toEqual([null, { ok: true }]);
});

test.each([undefined, null, 'text', 7, ['list'], { n: 1n }])('%s is no evidence', (evidence) => {
  expect(storable(evidence)).toBeUndefined();
});

test('evidence is kept as JSON has it, without what the store refuses', () => {
  const at = new Date(0);
  expect(storable({ at, a: 'x\0y\ud800', b: '\\u0000 \\\0', 'k\0': '\u{1f600}' })).toEqual({
    at: at.toISOString(),
    a: 'x\ufffdy\ufffd',
    b: '\\u0000 \\\ufffd',
    'k\ufffd': '\u{1f600}',
  });
});

test('of too much evidence only its size is kept', () => {
  expect(storable({ dump: 'x'.repeat(40_000) })).toEqual({ left_out: '40011 characters' });
  const most = { d: 'x'.repeat(32_768 - 8) };
  expect(storable(most)).toEqual(most);
  expect(storable({ d: `${most.d}x` })).toEqual({ left_out: '32769 characters' });
});
