import { expect, test } from 'vitest';
import { askEach, storable } from './answers.ts';

const never = new AbortController().signal;

test.each([[[]], [['a']], [['a', 'b', 'c']], ['ab'], [null], [undefined]])(
  '%j for two is no answer',
  async (answer) => {
    await expect(askEach(2, never, () => wrongly(answer))).rejects.toMatchObject({ errorClass: 'misconfigured' });
  },
);

/** What a provider written without types may answer. */
async function wrongly(answer: unknown): Promise<never> {
  return answer as never;
}

test('two for two are an answer', async () => {
  expect(await askEach(2, never, async () => ['a', 'b'])).toEqual(['a', 'b']);
});

test('a call that does not end when its claim is lost is left behind', async () => {
  const lost = new AbortController();
  const asked = askEach(1, lost.signal, async () => await new Promise<never>(() => {}));
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
