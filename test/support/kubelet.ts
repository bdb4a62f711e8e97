import { spawnSync } from 'node:child_process';
import { chownSync, mkdirSync, readdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import type { Container, PodSpec } from './helm.ts';

/** Data of Secrets or ConfigMaps by name: key → text. */
export type Objects = Readonly<Record<string, Readonly<Record<string, string>>>>;

export interface PodUser {
  readonly uid: number;
  readonly gid: number;
}

/**
 * The user that a pod's security context names, if this process may become it and it can then read `file`. There is no
 * account of that number, as in a cluster whose platform picks the user.
 */
export function podUser(spec: PodSpec, file: string): PodUser | undefined {
  const user = { uid: Number(spec.securityContext['runAsUser']), gid: Number(spec.securityContext['runAsGroup']) };
  if (process.getuid?.() !== 0) return undefined;
  const read = spawnSync(process.execPath, ['-e', 'require("fs").readFileSync(process.argv[1])', file], user);
  return read.status === 0 ? user : undefined;
}

interface Item {
  readonly key: string;
  readonly path: string;
}
interface KeyedSource {
  readonly name?: string;
  readonly secretName?: string;
  readonly items?: readonly Item[];
}
interface Volume {
  readonly name: string;
  readonly secret?: KeyedSource;
  readonly configMap?: KeyedSource;
  readonly projected?: { readonly sources: readonly { readonly secret: KeyedSource }[] };
}

/**
 * Plays the part of the kubelet as far as files go: mounts a pod's volumes below `root`, with the same links
 * (`file → ..data/file`, `..data → ..<time>`) by which Kubernetes swaps the files of a running pod.
 * @throws Error when a Secret, a ConfigMap or a key of one is not there: such a pod would never start.
 */
export function mountVolumes(spec: PodSpec, root: string, secrets: Objects, configMaps: Objects, user?: PodUser): void {
  const volumes = new Map(((spec.volumes ?? []) as unknown[]).map(asVolume).map((volume) => [volume.name, volume]));
  for (const { name, mountPath } of spec.containers.flatMap(({ volumeMounts }) => volumeMounts)) {
    const volume = volumes.get(name);
    if (volume === undefined) throw new Error(`volume ${name} is not there`);
    const folder = join(root, mountPath);
    mkdirSync(join(folder, '..2026_01_01'), { recursive: true });
    for (const [path, text] of filesOf(volume, secrets, configMaps)) {
      const file = join(folder, '..2026_01_01', path);
      mkdirSync(dirname(file), { recursive: true });
      writeFileSync(file, text, { mode: 0o440 });
      if (user !== undefined) chownSync(file, 0, user.gid);
    }
    symlinkSync('..2026_01_01', join(folder, '..data'));
    for (const top of readdirSync(join(folder, '..data'))) symlinkSync(join('..data', top), join(folder, top));
  }
}

function asVolume(value: unknown): Volume {
  return value as Volume;
}

function filesOf(
  { name, secret, configMap, projected }: Volume,
  secrets: Objects,
  configMaps: Objects,
): [string, string][] {
  if (secret !== undefined) return pick(secrets, secret.secretName, secret.items);
  if (configMap !== undefined) return pick(configMaps, configMap.name, configMap.items);
  if (projected === undefined) throw new Error(`volume ${name} is of a kind that is not played here`);
  return projected.sources.flatMap(({ secret: source }) => pick(secrets, source.name, source.items));
}

function pick(objects: Objects, name = '', items?: readonly Item[]): [string, string][] {
  const data = objects[name];
  if (data === undefined) throw new Error(`${name} is not there`);
  return (items ?? Object.keys(data).map((key) => ({ key, path: key }))).map(({ key, path }) => {
    const text = data[key];
    if (text === undefined) throw new Error(`${name} has no key ${key}`);
    return [path, text];
  });
}

/** A container's arguments and variables, with the paths of its mounts moved below `root`. */
export function commandOf({ args, env }: Container, root: string): { args: string[]; env: Record<string, string> } {
  const moved = (text: string): string => (text.startsWith('/var/run/mayfly/') ? join(root, text) : text);
  return {
    args: args.map(moved),
    env: Object.fromEntries(env.map(({ name, value = '' }) => [name, moved(value)])),
  };
}
