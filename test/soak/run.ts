import { writeFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { makeLedger } from '../contract/postgres-fixture.ts';
import { parseVersions } from '../support/postgres-binaries.ts';
import { startPostgres } from '../support/postgres-servers.ts';
import { soak } from './lives.ts';
import { notBack, sayBounds, type Sizes } from './size.ts';

/** `npm run soak -- postgres`: many lives on one target; ends with 0 only when everything is back to where it began. */
const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    lives: { type: 'string', default: '100000' },
    rate: { type: 'string', default: '200' },
    iterations: { type: 'string', default: '4096' },
    version: { type: 'string', default: '18' },
    json: { type: 'string' },
  },
});
if (positionals.length !== 1 || positionals[0] !== 'postgres') {
  console.error(
    'usage: npm run soak -- postgres [--lives 100000] [--rate 200] [--iterations 4096] [--version 18] [--json FILE]',
  );
  process.exit(2);
}
const [version = 18] = parseVersions(values.version);
const server = await startPostgres({
  version,
  settings: { fsync: 'on', full_page_writes: 'on', shared_buffers: '256MB', max_connections: 150 },
});
const ledger = await makeLedger(server, 'ledger', { maxLive: 5000 });
try {
  let said = 0;
  const { before, half, full, after, perSecond, sessions, overtaken } = await soak(ledger, {
    lives: Number(values.lives),
    rate: Number(values.rate),
    iterations: Number(values.iterations),
    onProgress(done, seconds) {
      if (seconds - said < 10) return;
      said = seconds;
      console.error(`${done} lives in ${seconds.toFixed(0)} s (${(done / seconds).toFixed(0)}/s)`);
    },
  });
  console.log(
    `PostgreSQL ${version}: ${values.lives} lives, ${perSecond.toFixed(0)}/s; ${sessions} had a session open when they ended, ` +
      `${overtaken} were ended before their mint`,
  );
  console.log(sayTable(before, half, full, after));
  const faults = notBack(before, half, after);
  for (const fault of faults) console.log(`NOT BACK: ${fault}`);
  console.log(faults.length === 0 ? `back to where it began (${sayBounds()})` : `not back (${sayBounds()})`);
  if (faults.length > 0) process.exitCode = 1;
  if (values.json !== undefined) {
    const result = { lives: Number(values.lives), version, per_second: perSecond, before, half, full, after, faults };
    writeFileSync(values.json, `${JSON.stringify(result, null, 2)}\n`);
  }
} finally {
  await ledger.close();
  await server.stop();
}

function sayTable(...moments: readonly [before: Sizes, half: Sizes, full: Sizes, after: Sizes]): string {
  const kb = (bytes: number): string => (bytes / 1024).toFixed(0);
  const four = (of: (sizes: Sizes) => unknown): string[] => moments.map((sizes) => String(of(sizes)));
  const [before] = moments;
  const headings = ['rows', 'dead', 'heap kB', 'indexes kB'];
  const lines = [
    ['', ...headings.flatMap((heading) => [heading, '', '', ''])],
    ['', ...headings.flatMap(() => ['before', 'half', 'full', 'after'])],
    ...before.tables.map((was) => {
      const at = (sizes: Sizes) => sizes.tables.find(({ name }) => name === was.name) ?? was;
      return [
        was.name,
        ...four((sizes) => at(sizes).rows),
        ...four((sizes) => at(sizes).dead),
        ...four((sizes) => kb(at(sizes).heapBytes)),
        ...four((sizes) => kb(at(sizes).indexBytes)),
      ];
    }),
    ['roles of ours', ...four(({ roles }) => roles)],
    ['registered', ...four(({ registered }) => registered)],
  ];
  const widths = lines[1]?.map((_, column) => Math.max(...lines.map((cells) => cells[column]?.length ?? 0))) ?? [];
  return lines
    .map((cells) =>
      cells.map((cell, i) => (i === 0 ? cell.padEnd(widths[i] ?? 0) : cell.padStart(widths[i] ?? 0))).join(' '),
    )
    .join('\n');
}
