import { expect, test } from 'vitest';
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
});
