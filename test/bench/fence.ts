import { parseArgs } from 'node:util';
import { INLINE_CHARACTERS } from '../model/aws-fence/role.ts';
import { type Result, simulate } from '../model/aws-fence/simulate.ts';
import { report, type Row, quantile } from './lib/report.ts';

/**
 * The fence of AWS in model time: an hour of 20 grants a second. How large the document of a role becomes, how often it is written and in
 * which form; and whether anybody was denied who lives, or let through who ended, sampled decisions by an evaluator that is not ours.
 * `--seconds 3600 --rate 20 --task 60 --ttl 900 --roles 8,16 --brokers 2 --restart 600 --seed 1 --samples 500`
 */
const { values } = parseArgs({
  options: {
    seconds: { type: 'string', default: '3600' },
    rate: { type: 'string', default: '20' },
    task: { type: 'string', default: '60' },
    ttl: { type: 'string', default: '900' },
    roles: { type: 'string', default: '8,16' },
    brokers: { type: 'string', default: '2' },
    restart: { type: 'string', default: '600' },
    seed: { type: 'string', default: '1' },
    samples: { type: 'string', default: '500' },
    json: { type: 'string' },
  },
});

const rows: Row[] = [];
for (const roles of values.roles.split(',').map(Number)) {
  const seconds = Number(values.seconds);
  const result = await simulate({
    seed: Number(values.seed),
    seconds,
    grantsPerSecond: Number(values.rate),
    roles,
    taskSeconds: Number(values.task),
    ttlSeconds: Number(values.ttl),
    propagationSeconds: 60,
    clockOffsetMs: 1500,
    clockErrorMs: 700,
    renewed: 0.05,
    crashed: 0.01,
    brokers: Number(values.brokers),
    restartSeconds: Number(values.restart),
    heldUp: 0.0005,
    lateDeletions: 0.01,
    samples: Number(values.samples),
    rules: { paceMs: 1000, lagMs: 60_000, idleMs: 300_000, settledMs: 60_000, abandonedMs: 600_000 },
  });
  rows.push(...rowsOf(`${roles} roles, ${values.brokers} brokers`, roles, seconds, result));
}
report('fence', rows);

function rowsOf(name: string, roles: number, seconds: number, result: Result): readonly Row[] {
  const { deniedWrongly, letThrough, disputed } = result;
  const forms = Object.entries(result.forms).map(([form, count]) => `${form} ${count}`);
  console.log(`${name}: ${result.grants} grants, ${result.ended} ended; ${result.writes} writes (${forms.join(', ')})`);
  console.log(
    `  ${result.judged} decisions judged, ${result.sampled} of them by the independent evaluator, which disputes ${disputed.length}`,
  );
  const faults = [...deniedWrongly.first, ...letThrough.first, ...disputed.slice(0, 5)];
  for (const fault of faults) console.log(`  FAULT: ${fault}`);
  if (faults.length > 0) process.exitCode = 1;
  const times = (of: readonly number[]) => ({ p50_ms: quantile(of, 0.5) * 1000, p99_ms: quantile(of, 0.99) * 1000 });
  const count = (what: string, value: number): Row => ({ case: `${name}: ${what}`, value, unit: '' });
  const rate = result.writes / seconds / roles;
  return [
    {
      ...{ case: `${name}: all policies of a role`, value: result.largest, unit: 'characters' },
      ...{ ratio: result.largest / INLINE_CHARACTERS, of: 'the quota' },
    },
    { case: `${name}: end to written`, value: rate, unit: 'writes/s a role', ...times(result.written) },
    { case: `${name}: end to in force`, value: result.ended / seconds, unit: 'ends/s', ...times(result.contained) },
    count('live, and denied', deniedWrongly.count),
    count('ended, and let through', letThrough.count),
    count('denied by a role-wide fence', result.lost),
    count('sessions nobody was given', result.unheld),
    count('writes without room', result.noRoom + result.refusedWrites),
  ];
}
