import { spawnSync } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import {
  chmodSync,
  chownSync,
  closeSync,
  existsSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { RunAs } from './postgres-binaries.ts';

const INITDB = ['-U', 'postgres', '-A', 'scram-sha-256', '-E', 'UTF8', '--locale=C', '-N'];

/**
 * A new cluster in that folder: a copy of one that `initdb` made once on this machine, which takes a quarter of its time, with a
 * system identifier of its own as each cluster has.
 * @param bin The folder with `initdb` and `postgres`.
 * @returns The password of its superuser, which all copies share.
 */
export function makeCluster(bin: string, data: string, user: RunAs | undefined): string {
  const template = findTemplate(bin, user);
  run('cp', ['-Rp', join(template, 'data'), data], user);
  identify(data, randomBytes(8).readBigUInt64LE() >> 1n);
  return readFileSync(join(template, 'password'), 'utf8');
}

function findTemplate(bin: string, user: RunAs | undefined): string {
  const release = run(join(bin, 'postgres'), ['--version'], user);
  const kind = createHash('sha256').update(release).update(INITDB.join(' ')).digest('hex').slice(0, 12);
  const owner = user?.uid ?? process.getuid?.() ?? 0;
  const home = join(tmpdir(), `mayfly-test-cluster-${kind}-${owner}`);
  if (!existsSync(home)) makeTemplate(bin, home, user);
  // The name can be known, and the folder is everybody's.
  const { uid, mode } = statSync(home);
  if (uid !== owner || (mode & 0o077) !== 0) throw new Error(`${home} is not ours alone`);
  return home;
}

function makeTemplate(bin: string, home: string, user: RunAs | undefined): void {
  const half = mkdtempSync(`${home}-`);
  try {
    const passwordFile = join(half, 'password');
    writeFileSync(passwordFile, randomBytes(18).toString('hex'), { mode: 0o600 });
    if (user !== undefined) for (const path of [half, passwordFile]) chownSync(path, user.uid, user.gid);
    chmodSync(half, 0o700);
    run(join(bin, 'initdb'), ['-D', join(half, 'data'), `--pwfile=${passwordFile}`, ...INITDB], user);
    renameSync(half, home);
  } catch (error) {
    rmSync(half, { recursive: true, force: true });
    // Another test process was quicker.
    if (!existsSync(home)) throw error;
  }
}

function run(command: string, args: readonly string[], user: RunAs | undefined): string {
  const { status, stdout, stderr, error } = spawnSync(command, args, { ...user, encoding: 'utf8', cwd: '/' });
  if (status !== 0) throw new Error(`${command} failed: ${error?.message ?? ''}${stderr}`);
  return stdout;
}

/** It stands at the beginning of the control file, which ends with its checksum, and in the first page of each segment of WAL. */
function identify(data: string, identifier: bigint): void {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(identifier);
  const file = join(data, 'global', 'pg_control');
  const control = readFileSync(file);
  const end = endOfControl(control);
  bytes.copy(control);
  control.writeUInt32LE(crc32c(control.subarray(0, end)), end);
  overwrite(file, 0, control);
  const wal = join(data, 'pg_wal');
  for (const name of readdirSync(wal).filter((each) => /^[0-9A-F]{24}$/.test(each)))
    overwrite(join(wal, name), 24, bytes);
}

/** Where its checksum stands is another place in each version: where it fits. */
function endOfControl(control: Buffer): number {
  for (let end = 128; end < 1024; end += 4)
    if (control.readUInt32LE(end) === crc32c(control.subarray(0, end))) return end;
  throw new Error('a control file without a checksum');
}

function overwrite(file: string, position: number, bytes: Buffer): void {
  const descriptor = openSync(file, 'r+');
  try {
    writeSync(descriptor, bytes, 0, bytes.length, position);
  } finally {
    closeSync(descriptor);
  }
}

function crc32c(bytes: Buffer): number {
  let crc = 0xffffffff;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ 0x82f63b78 : crc >>> 1;
  }
  return (crc ^ 0xffffffff) >>> 0;
}
