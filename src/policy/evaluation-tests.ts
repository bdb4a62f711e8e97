import { z } from 'zod';
import type { Catalog } from '../catalog/types.ts';
import {
  assumedHistory,
  assumedNow,
  assumedFacts,
  assumedOwn,
  assumedSignals,
  assumedTask,
  assumedTaskSchema,
  assumedTree,
  checkSignals,
  checkTree,
  differences,
  expectedAnswer,
  type PolicyTest,
  type PolicyTestResult,
  runPolicyTest,
} from './policy-tests.ts';
import type { EvaluationRequest, PolicyEngine } from './types.ts';

const text = z.string().max(1000);
const properties = z.record(z.string(), z.unknown()).default({});
const asked = z.strictObject({ type: text, id: text, properties });

/** One test of what is asked by AuthZEN, beside the policy tests: by a task, assumed as there, or by somebody of the catalog's own types. */
export const evaluationTestSchema = z.strictObject({
  name: text.min(1),
  evaluation: z
    .strictObject({
      task: assumedTaskSchema.optional(),
      subject: asked.optional(),
      action: text,
      action_properties: properties,
      resource: asked,
      context: properties,
      own: assumedOwn,
      tree: assumedTree,
      signals: assumedSignals,
      now: assumedNow,
    })
    .refine(({ task, subject }) => (task === undefined) !== (subject === undefined), 'must say `task` or `subject`'),
  expect: expectedAnswer.omit({ sealed_delivery: true }).extend({ single_use: z.boolean().optional() }),
});

export type EvaluationTest = z.infer<typeof evaluationTestSchema>;

/** Asks the engine what the test asks, and compares. */
export function runTest(test: PolicyTest | EvaluationTest, catalog: Catalog, engine: PolicyEngine): PolicyTestResult {
  if ('request' in test) return runPolicyTest(test, catalog, engine);
  const failures: PolicyTestResult['failures'][number][] = [];
  const request = evaluationOf(test.evaluation, catalog, (path, message) => {
    failures.push({ path: ['evaluation', ...path], message });
  });
  if (failures.length === 0 && request !== undefined) {
    const answer = engine.evaluate(request);
    const differ = (path: readonly string[], message: string) =>
      failures.push({ path, message: `"${test.name}": ${message}` });
    // It would pass for any expected deny, and no policy was asked.
    if (answer.unfit !== null) differ(['evaluation'], `it can not be asked: ${answer.unfit}`);
    else failures.push(...differences(test, answer));
    const { single_use: singleUse } = test.expect;
    if (singleUse !== undefined && singleUse !== answer.singleUse)
      differ(['expect', 'single_use'], `it is ${answer.singleUse ? '' : 'not '}for a single use`);
  }
  return { name: test.name, passed: failures.length === 0, failures };
}

function evaluationOf(
  said: EvaluationTest['evaluation'],
  catalog: Catalog,
  unknown: (path: readonly string[], message: string) => void,
): EvaluationRequest | undefined {
  const now = new Date(said.now);
  checkTree(said.tree, catalog, unknown);
  checkSignals(said.signals, catalog, unknown);
  const task =
    said.task && assumedTask(said.task, catalog, now, (path, message) => unknown(['task', ...path], message));
  const subject: EvaluationRequest['subject'] | undefined = task
    ? { kind: 'task', task, history: assumedHistory(said, catalog) }
    : said.subject && { kind: 'other', asked: said.subject };
  return (
    subject && {
      now,
      signals: assumedFacts(said.signals, catalog),
      subject,
      action: { name: said.action, properties: said.action_properties },
      resource: said.resource,
      said: said.context,
    }
  );
}
