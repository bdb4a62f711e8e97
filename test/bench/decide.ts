import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createRequire } from 'node:module';
import { createInterface } from 'node:readline';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { createPolicyEngine } from '../../src/policy/engine.ts';
import { policySet, sampleRequest } from '../../src/policy/testing/sample.ts';
import type { EvaluationRequest } from '../../src/policy/types.ts';
import { aboutTask, ENTITIES, SCHEMA, TYPES } from '../support/authzen.ts';
import { startBenchHouse } from './lib/bench-house.ts';
import { call, closeConnections } from './lib/http.ts';
import { joined, type Measured, measure, report, type Row } from './lib/report.ts';

/**
 * Decisions per second of the policy engine alone, to issue and to evaluate, with 10, 100 and 1,000 policies of which one applies; then
 * AuthZEN over HTTP with 100 of them (token verified, decision and use event committed with fsync) beside a bare Express route that
 * reads a body and answers one. They take turns.
 */
const ROUNDS = 5;

const READS =
  '@id("reads") permit (principal is Mayfly::Task, action, resource == Mayfly::Entitlement::"ledger-db/read-invoices");';

/** One applies to an evaluation of an open document. */
const policies = (count: number) =>
  [
    '@id("open") permit (principal, action in Mayfly::Action::"evaluate", resource is document) when { resource has open && resource.open };',
    ...Array.from(
      { length: count - 1 },
      (_, n) =>
        `@id("other-${n}") permit (principal is Mayfly::Task, action, resource is document) when { principal.subject == "user-${n}" && principal.depth < 3 };`,
    ),
  ].join('\n');

const evaluation: EvaluationRequest = {
  now: new Date(),
  signals: sampleRequest.signals,
  subject: { kind: 'task', task: sampleRequest.task, history: sampleRequest.history },
  action: { name: 'read', properties: {} },
  resource: { type: 'document', id: 'new', properties: { open: true } },
  said: { time: 'now' },
};

const rows: Row[] = [];
for (const count of [10, 100, 1_000]) {
  const engine = createPolicyEngine(policySet(`${policies(count - 1)}\n${READS}`, TYPES), 'sha256:bench');
  const asked = count === 1_000 ? 300 : 3_000;
  for (const [name, decide] of [
    ['issue', () => engine.decide(sampleRequest)],
    ['evaluate', () => engine.evaluate(evaluation)],
  ] as const) {
    const work = async () => {
      const { permitted, errors } = decide();
      if (!permitted) throw new Error(`not permitted: ${errors.join('; ')}`);
    };
    await measure(asked / 10, 1, work);
    rows.push({ case: `${name}, ${count} policies`, unit: 'decisions/s', ...joined([await measure(asked, 1, work)]) });
  }
  engine.close();
}

const house = await startBenchHouse({
  also: async () => ({
    files: { [SCHEMA]: TYPES, 'entities.yaml': ENTITIES, 'policies/evaluating.cedar': policies(100) },
  }),
});
try {
  const token = await house.token();
  const { task } = await house.client().openTask(await house.sign());
  const body = aboutTask(task.id);
  const floor = await startFloor();
  const ask = async (url: string, count: number, concurrency: number) =>
    await measure(count, concurrency, async () => {
      const answer = await call('POST', url, token, body);
      if (answer.body['decision'] !== true) throw new Error(`${answer.status} ${JSON.stringify(answer.body)}`);
    });
  const authzen = `${house.url}/access/v1/evaluation`;
  await ask(authzen, 400, 8);
  await ask(floor.url, 2_000, 8);
  for (const [concurrency, count] of [
    [1, 200],
    [16, 800],
  ] as const) {
    const rounds: Record<'ours' | 'bare', Measured[]> = { ours: [], bare: [] };
    for (let round = 0; round < ROUNDS; round++) {
      rounds.bare.push(await ask(floor.url, count * 4, concurrency));
      rounds.ours.push(await ask(authzen, count, concurrency));
    }
    const bare = joined(rounds.bare);
    const ours = joined(rounds.ours);
    const of = `bare express c${concurrency}`;
    rows.push({
      case: `authzen 100 policies c${concurrency}`,
      unit: 'calls/s',
      ...ours,
      ratio: ours.value / bare.value,
      of,
    });
    rows.push({ case: of, unit: 'calls/s', ...bare });
  }
  floor.stop();
  report('decide', rows);
} finally {
  closeConnections();
  await house.stop();
}

async function startFloor(): Promise<{ url: string; stop: () => void }> {
  const tsx = pathToFileURL(createRequire(import.meta.url).resolve('tsx')).href;
  const main = fileURLToPath(new URL('./lib/bare-express.ts', import.meta.url));
  const child = spawn(process.execPath, ['--import', tsx, main], {
    env: { PATH: process.env['PATH'] ?? '', HOME: process.env['HOME'] ?? '/', NODE_ENV: 'production' },
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  const [port] = (await once(createInterface({ input: child.stdout }), 'line')) as [string];
  return { url: `http://127.0.0.1:${port}/`, stop: () => void child.kill('SIGKILL') };
}
