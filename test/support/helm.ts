import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseAllDocuments } from 'yaml';

/** The chart's folder. */
export const chart = fileURLToPath(new URL('../../helm/mayfly', import.meta.url));

/**
 * The `helm` binary: MAYFLY_TEST_HELM, then PATH, then where `go install` puts it. A missing one is said aloud on a
 * laptop and fails when `CI=true`.
 */
export function findHelm(): string | null {
  const go = spawnSync('go', ['env', 'GOPATH'], { encoding: 'utf8' }).stdout ?? '';
  const folders = [...(process.env['PATH'] ?? '').split(delimiter), join(go.trim() || '/nowhere', 'bin')];
  const candidates = [process.env['MAYFLY_TEST_HELM'] ?? '', ...folders.map((folder) => join(folder, 'helm'))];
  const found = candidates.find((file) => file !== '' && existsSync(file));
  if (found !== undefined) return found;
  const says = 'helm was not found (MAYFLY_TEST_HELM, PATH, $(go env GOPATH)/bin)';
  if (process.env['CI'] === 'true') throw new Error(says);
  console.warn(`\n*** SKIPPED: ${says}: the chart is not tested ***\n`);
  return null;
}

export interface Rendered {
  readonly kind: string;
  readonly metadata: {
    readonly name: string;
    readonly labels: Readonly<Record<string, string>>;
    readonly annotations?: Readonly<Record<string, string>>;
  };
  readonly [part: string]: unknown;
}

/** What `helm` prints, whether it succeeds or not. */
export function helm(binary: string, args: readonly string[]): { ok: boolean; output: string } {
  const { status, stdout, stderr } = spawnSync(binary, args, { encoding: 'utf8' });
  return { ok: status === 0, output: `${stdout}${stderr}` };
}

/** The objects of `helm template`. @throws Error with helm's own words when it refuses. */
export function render(binary: string, args: readonly string[], release = 'agents'): Rendered[] {
  const text = execFileSync(binary, ['template', release, chart, ...args], { encoding: 'utf8', stdio: 'pipe' });
  return parseAllDocuments(text).flatMap((document) => {
    if (document.errors.length > 0) throw new Error(`not YAML: ${document.errors.join('; ')}`);
    const value: Rendered | null = document.toJS();
    return value === null ? [] : [value];
  });
}

export interface PodSpec {
  readonly securityContext: Readonly<Record<string, unknown>>;
  readonly containers: readonly Container[];
  readonly volumes?: readonly Readonly<Record<string, unknown>>[];
  readonly [part: string]: unknown;
}

export interface Container {
  readonly name: string;
  readonly image: string;
  readonly args: readonly string[];
  readonly env: readonly { readonly name: string; readonly value?: string }[];
  readonly volumeMounts: readonly { readonly name: string; readonly mountPath: string; readonly readOnly?: boolean }[];
  readonly securityContext: Readonly<Record<string, unknown>>;
  readonly [part: string]: unknown;
}

export interface Pod {
  /** `Deployment/agents-mayfly` and so on. */
  readonly owner: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly spec: PodSpec;
}

/** The pods that the rendered objects would make. */
export function podsOf(objects: readonly Rendered[]): Pod[] {
  return objects.flatMap((object) => {
    const { template } = (object['spec'] ?? {}) as { template?: { metadata: Rendered['metadata']; spec: PodSpec } };
    if (template === undefined) return [];
    return [{ owner: `${object.kind}/${object.metadata.name}`, labels: template.metadata.labels, spec: template.spec }];
  });
}

/** What Pod Security "restricted" (and our own rules beside it) would say against a pod. */
export function restrictedFaults(spec: PodSpec): string[] {
  const faults: string[] = [];
  const want = (ok: boolean, says: string): void => {
    if (!ok) faults.push(says);
  };
  want(spec['automountServiceAccountToken'] === false, 'has a service account token');
  want(spec['enableServiceLinks'] === false, 'gets MAYFLY_PORT and the like from service links');
  for (const name of ['hostNetwork', 'hostPID', 'hostIPC']) want(!(name in spec), `sets ${name}`);
  want(spec.securityContext['runAsNonRoot'] === true, 'may run as root');
  want(spec.securityContext['runAsUser'] !== 0, 'runs as root');
  want(isRuntimeDefault(spec.securityContext), 'has no seccomp profile');
  for (const volume of spec.volumes ?? []) {
    const kinds = Object.keys(volume).filter((key) => key !== 'name');
    want(
      kinds.every((kind) => ['secret', 'configMap', 'projected', 'emptyDir'].includes(kind)),
      `mounts a ${kinds.join()}`,
    );
  }
  want(
    spec['initContainers'] === undefined && spec['ephemeralContainers'] === undefined,
    'has containers not looked at',
  );
  for (const { name, securityContext: context, volumeMounts } of spec.containers) {
    want(context['allowPrivilegeEscalation'] === false, `${name} may escalate`);
    want(context['readOnlyRootFilesystem'] === true, `${name} may write its root file system`);
    want(context['runAsNonRoot'] === true, `${name} may run as root`);
    want(!('privileged' in context), `${name} is privileged`);
    want(JSON.stringify(context['capabilities']) === '{"drop":["ALL"]}', `${name} keeps capabilities`);
    want(isRuntimeDefault(context), `${name} has no seccomp profile`);
    want(
      volumeMounts.every((mount) => mount.readOnly === true),
      `${name} mounts something to write to`,
    );
  }
  return faults;
}

function isRuntimeDefault(context: Readonly<Record<string, unknown>>): boolean {
  return JSON.stringify(context['seccompProfile']) === '{"type":"RuntimeDefault"}';
}
