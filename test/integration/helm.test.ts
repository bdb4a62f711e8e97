import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { parse } from 'yaml';
import { readConfig } from '../../src/config.ts';
import { chart, findHelm, helm, type Pod, podsOf, type Rendered, render, restrictedFaults } from '../support/helm.ts';

const found = findHelm();
const binary = found ?? '';
const examples = readdirSync(join(chart, 'ci')).map((name) => join(chart, 'ci', name));
const example = (name: string): string => join(chart, 'ci', `${name}-values.yaml`);
const kubeVersions = ['1.25.0', '1.34.4'];
const objectsOf = (file: string, ...more: string[]): Rendered[] =>
  render(binary, ['--kube-version', '1.34.4', '-f', file, ...more]);

/** The pods that name this Secret anywhere. */
function whoReads(pods: readonly Pod[], secret: string): string[] {
  return pods.filter(({ spec }) => JSON.stringify(spec).includes(`"${secret}"`)).map(({ owner }) => owner);
}

describe.skipIf(found === null)('the Helm chart', () => {
  test('passes the strict lint with its own values', () => {
    expect(helm(binary, ['lint', '--strict', chart])).toMatchObject({ ok: true });
  });

  describe.each(examples)('with %s', (file) => {
    test('passes the strict lint', () => {
      expect(helm(binary, ['lint', '--strict', chart, '-f', file])).toMatchObject({ ok: true });
    });

    test.each(kubeVersions)('makes only pods that Pod Security "restricted" takes, on Kubernetes %s', (version) => {
      const pods = podsOf(render(binary, ['--kube-version', version, '-f', file]));
      expect(pods.length).toBeGreaterThan(0);
      expect(pods.map(({ owner, spec }) => [owner, restrictedFaults(spec)])).toEqual(
        pods.map(({ owner }) => [owner, []]),
      );
    });

    test('writes down no secret: it makes none, and no variable is read from one', () => {
      const objects = objectsOf(file);
      expect(objects.map(({ kind }) => kind)).not.toContain('Secret');
      const variables = podsOf(objects).flatMap(({ spec }) => spec.containers.flatMap(({ env }) => env));
      expect(variables.filter((variable) => Object.keys(variable).join() !== 'name,value')).toEqual([]);
      expect(variables.filter(({ value }) => /:\/\/[^/]*@/.test(value ?? ''))).toEqual([]);
    });

    test('gives each pod settings that the broker accepts, each file of them mounted', () => {
      for (const { owner, spec } of podsOf(objectsOf(file))) {
        const mounts = spec.containers.flatMap(({ volumeMounts }) =>
          volumeMounts.map(({ mountPath }) => `${mountPath}/`),
        );
        const variables = spec.containers.flatMap(({ env }) =>
          env.map(({ name, value = '' }) => [name, value] as const),
        );
        const files = variables.filter(([name]) => name.endsWith('_FILE'));
        expect([owner, files.filter(([, value]) => !mounts.some((mount) => value.startsWith(mount)))]).toEqual([
          owner,
          [],
        ]);
        const settings = variables.map(([name, value]) => {
          if (name === 'MAYFLY_WEBHOOK_SECRET_FILE')
            return ['MAYFLY_WEBHOOK_SECRET', `whsec_${Buffer.alloc(24).toString('base64')}`];
          if (!name.endsWith('_URL_FILE')) return [name, value];
          return [name.replace(/_FILE$/, ''), name.includes('REDIS') ? 'redis://h' : 'postgres://u:p@h/d'];
        });
        expect(() => readConfig(Object.fromEntries(settings))).not.toThrow();
      }
    });

    test('sends traffic to the brokers and not to the jobs', () => {
      const objects = objectsOf(file);
      const [service = {}] = objects.filter(({ kind }) => kind === 'Service').map(({ spec }) => spec);
      const { selector } = service as { selector: Record<string, string> };
      const selected = podsOf(objects).filter(({ labels }) =>
        Object.entries(selector).every(([name, value]) => labels[name] === value),
      );
      expect(selected.map(({ owner }) => owner.split('/')[0])).toEqual(['Deployment']);
    });
  });

  test('shows the owner of the schema to the migration alone, and the brokers what they need', () => {
    const pods = podsOf(objectsOf(example('full')));
    const [broker, catalog, migration] = ['Deployment/broker', 'Job/broker-catalog', 'Job/broker-migrate'];
    expect(pods.map(({ owner }) => owner).toSorted()).toEqual([broker, catalog, migration]);
    expect(whoReads(pods, 'mayfly-database-owner')).toEqual([migration]);
    expect(whoReads(pods, 'mayfly-database-sequencer')).toEqual([migration]);
    expect(whoReads(pods, 'mayfly-database').toSorted()).toEqual([broker, catalog, migration]);
    expect(whoReads(pods, 'mayfly-redis')).toEqual([broker]);
    expect(whoReads(pods, 'mayfly-webhook')).toEqual([broker]);
    expect(whoReads(pods, 'ledger-db-broker')).toEqual([broker]);
  });

  test('puts the secrets of each target into a folder of its own', () => {
    const broker = podsOf(objectsOf(example('full'))).find(({ owner }) => owner === 'Deployment/broker');
    expect(broker?.spec.volumes?.find((volume) => volume['name'] === 'targets')).toMatchObject({
      projected: {
        sources: [
          {
            secret: {
              name: 'ledger-db-broker',
              items: [
                { key: 'password', path: 'ledger-db/password' },
                { key: 'ca.crt', path: 'ledger-db/ca.crt' },
              ],
            },
          },
          { secret: { name: 'crm-db-broker', items: [{ key: 'password', path: 'crm-db/password' }] } },
        ],
      },
    });
  });

  test('migrates first, applies the catalog next, and lets the hooks bring all they need', () => {
    const hooks = objectsOf(example('full')).filter(
      ({ metadata }) => metadata.annotations?.['helm.sh/hook'] !== undefined,
    );
    const byWeight = hooks.toSorted((a, b) => weight(a) - weight(b));
    expect(byWeight.map(({ kind, metadata }) => `${kind}/${metadata.name}`)).toEqual([
      'ServiceAccount/broker-hooks',
      'Job/broker-migrate',
      'ConfigMap/broker-catalog',
      'Job/broker-catalog',
    ]);
    for (const hook of hooks) expect(hook.metadata.annotations?.['helm.sh/hook']).toBe('pre-install,pre-upgrade');
    for (const { owner, spec } of podsOf(hooks))
      expect([owner, spec['serviceAccountName']]).toEqual([owner, 'broker-hooks']);
  });

  test('mounts the catalog as the folder it was made from', () => {
    const objects = objectsOf(example('full'));
    const { data } = objects.find(({ kind }) => kind === 'ConfigMap') as { data?: Record<string, string> };
    const job = podsOf(objects).find(({ owner }) => owner === 'Job/broker-catalog');
    const volume = job?.spec.volumes?.find(({ name }) => name === 'catalog') as {
      configMap: { items: { key: string; path: string }[] };
    };
    const mounted = Object.fromEntries(volume.configMap.items.map(({ key, path }) => [path, data?.[key]]));
    const { catalog } = parse(readFileSync(example('full'), 'utf8')) as { catalog: { files: Record<string, string> } };
    expect(mounted).toEqual(catalog.files);
  });

  test('probes over TLS where the broker has it', () => {
    const probes = (file: string) => {
      const [broker] = podsOf(objectsOf(file)).filter(({ owner }) => owner.startsWith('Deployment/'));
      const container = broker?.spec.containers[0];
      return ['startupProbe', 'livenessProbe', 'readinessProbe'].map((name) => {
        const { httpGet } = (container?.[name] ?? {}) as { httpGet: { path: string; scheme: string; port: string } };
        return `${httpGet.scheme} ${httpGet.port} ${httpGet.path}`;
      });
    };
    expect(probes(example('minimal'))).toEqual(['HTTPS api /healthz', 'HTTPS api /healthz', 'HTTPS api /readyz']);
    expect(probes(example('full'))).toEqual(['HTTP api /healthz', 'HTTP api /healthz', 'HTTP api /readyz']);
  });

  test('gives a stopping broker the time that it was told it has', () => {
    const broker = podsOf(objectsOf(example('full'))).find(({ owner }) => owner === 'Deployment/broker');
    expect(broker?.spec['terminationGracePeriodSeconds']).toBeGreaterThan(10 + 30);
  });

  test('keeps every name within 63 characters', () => {
    const long = 'a'.repeat(53);
    const objects = render(binary, ['--kube-version', '1.34.4', '-f', example('minimal')], long);
    for (const { metadata } of objects) {
      expect(metadata.name.length).toBeLessThanOrEqual(63);
      for (const label of Object.values(metadata.labels)) expect(label.length).toBeLessThanOrEqual(63);
    }
  });

  const folder = mkdtempSync(join(tmpdir(), 'mayfly-values-'));
  afterAll(() => rmSync(folder, { recursive: true, force: true }));
  function refusal(values: unknown): string {
    const file = join(folder, 'values.json');
    writeFileSync(file, JSON.stringify(values));
    const { ok, output } = helm(binary, [
      ...['template', 'agents', chart, '--kube-version', '1.34.4'],
      ...['-f', example('minimal'), '-f', file],
    ]);
    return ok ? 'accepted' : output;
  }

  test.each([
    ['an unknown value', { databse: {} }],
    ['an unknown value deep down', { service: { prot: 1 } }],
    ['a password', { database: { runtime: { password: 'x' } } }],
    ['a URL with a password', { database: { runtime: { url: 'postgres://u:p@h/d' } } }],
    ['a webhook without TLS', { webhook: { url: 'http://hooks.example', existingSecret: 'hook' } }],
    ['a URL with a password where the name of a Secret belongs', { redis: { existingSecret: 'redis://:p@h' } }],
    ['a key in clear', { tls: { key: '-----BEGIN' } }],
    ['a free variable', { env: [{ name: 'MAYFLY_DATABASE_URL', value: 'x' }] }],
    [
      'a secret of a target in clear',
      { targets: { secrets: [{ target: 'a', existingSecret: 'b', keys: ['c'], value: 'x' }] } },
    ],
    ['root', { runAsUser: 0 }],
    ['a name without TLS', { publicUrl: 'http://broker.example.com' }],
    ['a name with a path', { publicUrl: 'https://broker.example.com/mayfly' }],
    ['everybody as a trusted proxy', { trustedProxies: ['0.0.0.0/0'] }],
    ['a file outside of the catalog', { catalog: { files: { '../x': '' } } }],
    ['paths of the catalog that would meet in one key', { catalog: { files: { a__b: '' } } }],
    ['a target that leaves its folder', { targets: { secrets: [{ target: '..', existingSecret: 'b', keys: ['c'] }] } }],
    ['a label that the selectors need', { podLabels: { 'app.kubernetes.io/name': 'x' } }],
  ])('refuses %s by its schema', (_what, values) => {
    expect(refusal(values)).toMatch(/don't meet the specifications of the schema/);
  });

  test.each([
    ['no listener security', { tls: { existingSecret: '' } }, /tls\.existingSecret or trustedProxies is required/],
    ['no name', { publicUrl: '' }, /publicUrl is required/],
    [
      'no key for a webhook',
      { webhook: { url: 'https://hooks.example' } },
      /webhook\.existingSecret is required with webhook\.url/,
    ],
    ['no store', { database: { runtime: { existingSecret: '' } } }, /database\.runtime\.existingSecret is required/],
    [
      'no owner for the migration',
      { database: { owner: { existingSecret: '' } } },
      /database\.owner\.existingSecret is required/,
    ],
    [
      'no sequencer for the migration',
      { database: { sequencer: { existingSecret: '' } } },
      /database\.sequencer\.existingSecret is/,
    ],
    ['two catalogs', { catalog: { files: { a: '' }, existingConfigMap: { name: 'b' } } }, /give one of them/],
  ])('refuses %s by name', (_what, values, says) => {
    expect(refusal(values)).toMatch(says);
  });

  test('accepts what these refusals start from', () => {
    expect(refusal({})).toBe('accepted');
  });

  test('has a default for each value that its schema knows', () => {
    const schema = JSON.parse(readFileSync(join(chart, 'values.schema.json'), 'utf8')) as Schema;
    const values: unknown = parse(readFileSync(join(chart, 'values.yaml'), 'utf8'));
    expect(missingDefaults(schema, values)).toEqual(['.global']);
  });
});

interface Schema {
  readonly properties?: Readonly<Record<string, Schema>>;
}

function missingDefaults(schema: Schema, values: unknown, path = ''): string[] {
  return Object.entries(schema.properties ?? {}).flatMap(([name, part]) => {
    const here = `${path}.${name}`;
    const value: unknown = Object.entries(Object(values)).find(([key]) => key === name)?.[1];
    return value === undefined ? [here] : missingDefaults(part, value, here);
  });
}

function weight({ metadata }: Rendered): number {
  return Number(metadata.annotations?.['helm.sh/hook-weight']);
}
