import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';
import { acts } from '../src/domain/step.ts';

const src = fileURLToPath(new URL('../src', import.meta.url));
const files = ['broker', 'revocation'].flatMap((folder) =>
  readdirSync(join(src, folder))
    .filter((file) => file.endsWith('.ts') && !file.endsWith('.test.ts'))
    .map((file) => ({ file: `${folder}/${file}`, text: readFileSync(join(src, folder, file), 'utf8') })),
);

interface Place {
  readonly file: string;
  readonly at: number;
  readonly says: string;
}

function places(pattern: RegExp): Place[] {
  return files.flatMap(({ file, text }) =>
    [...text.matchAll(pattern)].map((match) => ({ file, at: match.index, says: match[1] ?? match[0] })),
  );
}

const steps = places(/\bstep\('([a-z.-]+)'\)/g);

/** What changes something outside of this process: commits, calls to targets, words to the queue. */
const effects = places(
  /\.transaction\(|\b(?:session|stage\.store|issuing|ownedGrants|bell\(target\))\s*\.(?:mint|renew|fence|verify|reap|guarantee|intend|activate|end|set)\(|\b(?:markContained|markClean|markFailed|claimDue|extendClaims|look|requestRuns|claimRun|insertTenure|raiseBeat)\(|\.published\(/g,
);

/** Lines that only define what is called between steps elsewhere. */
const definitions = [
  'broker/issue-grant.ts: const onPool',
  'revocation/looking.ts: const verdicts = await askEach(items.map(toRef), signal, (refs, limited) => session.verify(',
  'revocation/looking.ts: export async function look(',
];

/** Hands on what is called between steps elsewhere, or only looks. */
const without = ['revocation/guarded-session.ts', 'revocation/reconcile-look.ts', 'broker/reach.ts'];

function isDefinition({ file, at }: Place): boolean {
  if (without.includes(file)) return true;
  const text = files.find((each) => each.file === file)?.text ?? '';
  const line = text.slice(text.lastIndexOf('\n', at) + 1, text.indexOf('\n', at));
  return definitions.some((known) => `${file}: ${line.trim()}`.startsWith(known));
}

test('each act has its step before and its step after, once, in this order, in one file', () => {
  expect(steps.map(({ says }) => says).sort()).toEqual(acts.flatMap((act) => [`${act}.after`, `${act}.before`]).sort());
  for (const act of acts) {
    const before = steps.find(({ says }) => says === `${act}.before`);
    const after = steps.find(({ says }) => says === `${act}.after`);
    expect(after, act).toMatchObject({ file: before?.file });
    expect(after?.at, act).toBeGreaterThan(before?.at ?? Number.POSITIVE_INFINITY);
  }
  expect(steps.length).toBeGreaterThanOrEqual(40);
});

test('each commit and each call to a target lies between the two steps of an act', () => {
  const uncovered = effects
    .filter((effect) => !isDefinition(effect))
    .filter(({ file, at }) => {
      const here = steps.filter((step) => step.file === file).sort((a, b) => a.at - b.at);
      const next = here.findIndex((step) => step.at > at);
      const [last, first, second] = [here[next - 1]?.says, here[next]?.says, here[next + 1]?.says];
      const isPair = (before = '', after = '') => before.replace('.before', '.after') === after && before !== after;
      // The first step may stand within: at the end of a transaction, before its commit.
      return !isPair(last, first) && !isPair(first, second);
    });
  expect(uncovered.map(({ file, says }) => `${file}: ${says}`)).toEqual([]);
  expect(effects.length).toBeGreaterThan(20);
});
