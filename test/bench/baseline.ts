import { parseArgs } from 'node:util';
import { faults } from './lib/faults.ts';
import { closeConnections } from './lib/http.ts';
import { report, type Row } from './lib/report.ts';
import { type Seen, Stage } from './lib/stage.ts';

/**
 * How many credentials stay alive under the usual scheme (`lib/usual-scheme.ts`: not ours, written anew for this) and under Mayfly,
 * when both meet the same fault at the same moment. Every credential has a session that goes on reading, and when it is refused tries
 * a new login. `--wait` is how long after the last hindrance is gone they are counted; both create their roles with VALID UNTIL.
 */
const { values } = parseArgs({
  options: {
    count: { type: 'string', default: '20' },
    outage: { type: 'string', default: '30' },
    backoff: { type: 'string', default: '60' },
    ttl: { type: 'string', default: '15' },
    wait: { type: 'string', default: '90' },
    only: { type: 'string', default: '' },
    json: { type: 'string' },
  },
});
const waitSeconds = Number(values.wait);
const backoffSeconds = Number(values.backoff);

const stage = await Stage.open({ count: Number(values.count), backoffMillis: backoffSeconds * 1000 });
try {
  const rows: Row[] = [];
  const lines: string[] = [];
  for (const fault of faults({
    outageSeconds: Number(values.outage),
    backoffSeconds,
    ttlSeconds: Number(values.ttl),
  })) {
    if (!fault.name.includes(values.only)) continue;
    await stage.begin();
    const free = await fault.run(stage);
    const seen = await stage.watch(Math.max(free, Date.now()) + waitSeconds * 1000);
    rows.push(...seen.flatMap((one) => rowsOf(fault.name, one)));
    lines.push(`| ${fault.name} | ${seen.map(cells).join(' | ')} |`);
  }
  report('baseline', rows);
  console.log(
    [
      '',
      `| what goes wrong | the usual scheme, ${waitSeconds} s later | Mayfly, ${waitSeconds} s later |`,
      '|---|---|---|',
      ...lines,
    ].join('\n'),
  );
} finally {
  closeConnections();
  await stage.close();
}

function rowsOf(fault: string, { scheme, unheld, reading, roles, lastReadSeconds }: Seen): Row[] {
  return [
    ...(unheld > 0 ? [{ case: `${fault}: ${scheme} made`, value: unheld, unit: 'roles' }] : []),
    { case: `${fault}: ${scheme} still read`, value: reading, unit: 'credentials' },
    { case: `${fault}: ${scheme} roles left`, value: roles, unit: 'roles' },
    { case: `${fault}: ${scheme} last read after due`, value: lastReadSeconds, unit: 's' },
  ];
}

function cells({ held, unheld, reading, roles, lastReadSeconds }: Seen): string {
  const left = `${roles} roles left`;
  if (held === 0) return `${left} of ${unheld} that were made`;
  const last = reading > 0 ? 'they go on' : `the last read ${lastReadSeconds.toFixed(1)} s after it was due`;
  return `${reading} of ${held} still read, ${left}; ${last}`;
}
