import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { ConfigError, printableConfig, readConfig, settingRows } from './config.ts';

function faultsOf(env: Record<string, string>): readonly string[] {
  try {
    readConfig(env);
    return [];
  } catch (error) {
    if (error instanceof ConfigError) return error.faults;
    throw error;
  }
}

const TLS = { MAYFLY_TLS_CERT_FILE: 'cert.pem', MAYFLY_TLS_KEY_FILE: 'key.pem' };

describe('settings', () => {
  test('have defaults for a laptop, and need none', () => {
    expect(readConfig({})).toMatchObject({
      host: '127.0.0.1',
      port: 7420,
      public_url: 'http://127.0.0.1:7420',
      providers: ['postgres'],
    });
  });

  test.each([
    ['http://127.0.0.1:7420', {}],
    ['https://127.0.0.1:7420', TLS],
    ['https://[::1]:8443', { ...TLS, MAYFLY_HOST: '::1', MAYFLY_PORT: '8443' }],
    ['https://broker.example', { ...TLS, MAYFLY_PUBLIC_URL: 'https://broker.example' }],
  ])('name the broker as its listener speaks, unless told otherwise: %s', (url, env) => {
    expect(readConfig(env).public_url).toBe(url);
  });

  const WEBHOOK_SECRET = `whsec_${Buffer.alloc(24, 7).toString('base64')}`;

  test.each([
    ['https://hooks.example/mayfly?team=sre', []],
    ['http://127.0.0.1:9000/', []],
    ['http://[::1]/', []],
    ['http://hooks.example/', ['MAYFLY_WEBHOOK_URL']],
    ['http://169.254.169.254/latest', ['MAYFLY_WEBHOOK_URL']],
    ['http://127.0.0.1.hooks.example/', ['MAYFLY_WEBHOOK_URL']],
    ['https://user:password@hooks.example/', ['MAYFLY_WEBHOOK_URL']],
    ['file:///etc/passwd', ['MAYFLY_WEBHOOK_URL']],
    ['hooks.example', ['MAYFLY_WEBHOOK_URL']],
  ])('take a webhook by https, or on loopback: %s', (url, names) => {
    const faults = faultsOf({ MAYFLY_WEBHOOK_URL: url, MAYFLY_WEBHOOK_SECRET: WEBHOOK_SECRET });
    expect(faults.map((fault) => fault.split(':')[0])).toEqual(names);
  });

  test('take no webhook without its secret, and no secret that is short', () => {
    const url = { MAYFLY_WEBHOOK_URL: 'https://hooks.example/' };
    expect(faultsOf(url).join()).toContain('give both or neither');
    expect(faultsOf({ ...url, MAYFLY_WEBHOOK_SECRET: 'whsec_c2hvcnQ=' }).join()).toContain('24 to 64');
    expect(JSON.stringify(readConfig({ ...url, MAYFLY_WEBHOOK_SECRET: WEBHOOK_SECRET }))).not.toContain(WEBHOOK_SECRET);
  });

  test('a list with several faulty parts is told of once', () => {
    expect(faultsOf({ MAYFLY_TRUSTED_PROXIES: 'one,two,10.0.0.0/33', MAYFLY_PROVIDERS: 'A,B' })).toEqual([
      'MAYFLY_TRUSTED_PROXIES: must be addresses or CIDR blocks, separated by commas',
      'MAYFLY_PROVIDERS: must be provider types, separated by commas',
    ]);
  });

  test('unknown names, bad values and missing files are listed all at once, by name', () => {
    const faults = faultsOf({
      MAYFLY_PROT: '1',
      MAYFLY_PORT: '70000',
      MAYFLY_LOG_LEVEL: 'loud',
      MAYFLY_DATABASE_URL_FILE: '/nowhere',
      MAYFLY_PORT_FILE: 'x',
      OTHER: 'x',
    });
    for (const name of [
      'MAYFLY_PROT',
      'MAYFLY_PORT',
      'MAYFLY_LOG_LEVEL',
      'MAYFLY_DATABASE_URL_FILE',
      'MAYFLY_PORT_FILE',
    ]) {
      expect(
        faults.some((fault) => fault.startsWith(`${name}:`)),
        name,
      ).toBe(true);
    }
  });

  test('a secret comes from a value or from a file, not from both, and is never printed', () => {
    const folder = mkdtempSync(join(tmpdir(), 'mayfly-config-'));
    try {
      const file = join(folder, 'url');
      writeFileSync(file, 'postgres://me:hunter2@db.example:5432/mayfly\n');
      const config = readConfig({ MAYFLY_DATABASE_URL_FILE: file });
      expect(config.database_url?.reveal()).toBe('postgres://me:hunter2@db.example:5432/mayfly');
      expect(JSON.stringify([printableConfig(config), config])).not.toContain('hunter2');
      expect(printableConfig(config)['MAYFLY_DATABASE_URL']).toBe('[secret]');
      expect(faultsOf({ MAYFLY_DATABASE_URL_FILE: file, MAYFLY_DATABASE_URL: 'postgres://a@b/c' }).join()).toContain(
        'given twice',
      );
    } finally {
      rmSync(folder, { recursive: true });
    }
  });

  test.each([
    [
      'a listener that is not loopback without TLS or a proxy',
      { MAYFLY_HOST: '0.0.0.0', MAYFLY_PUBLIC_URL: 'https://b.example' },
      'MAYFLY_HOST',
    ],
    [
      'client certificates without TLS of its own',
      { MAYFLY_TLS_CLIENT_CERTIFICATES: 'optional' },
      'MAYFLY_TLS_CLIENT_CERTIFICATES',
    ],
    ['half of a TLS pair', { MAYFLY_TLS_CERT_FILE: 'cert.pem' }, 'MAYFLY_TLS_CERT_FILE'],
    [
      'a public URL that is not https',
      { MAYFLY_HOST: '0.0.0.0', ...TLS, MAYFLY_PUBLIC_URL: 'http://b.example' },
      'MAYFLY_PUBLIC_URL',
    ],
    ...['https://b.example/mayfly', 'https://b.example/', 'https://:pw@b.example', 'https://b.example?x'].map(
      (url): [string, Record<string, string>, string] => [
        `a public URL that is more than an origin: ${url}`,
        { MAYFLY_HOST: '0.0.0.0', ...TLS, MAYFLY_PUBLIC_URL: url },
        'MAYFLY_PUBLIC_URL',
      ],
    ),
    ['no public URL beyond loopback', { MAYFLY_HOST: '0.0.0.0', ...TLS }, 'MAYFLY_PUBLIC_URL'],
    [
      'an objective shorter than the sweep',
      { MAYFLY_SWEEP_SECONDS: '30', MAYFLY_OVERDUE_SECONDS: '30' },
      'MAYFLY_OVERDUE_SECONDS',
    ],
    [
      'everybody as a proxy',
      { MAYFLY_HOST: '0.0.0.0', MAYFLY_PUBLIC_URL: 'https://b.example', MAYFLY_TRUSTED_PROXIES: '0.0.0.0/0' },
      'MAYFLY_TRUSTED_PROXIES',
    ],
  ])('refuse %s', (_, env, name) => {
    expect(faultsOf(env).join()).toContain(name);
  });

  test('accept a listener behind TLS or behind a named proxy', () => {
    expect(faultsOf({ MAYFLY_HOST: '0.0.0.0', ...TLS, MAYFLY_PUBLIC_URL: 'https://b.example' })).toEqual([]);
    expect(
      faultsOf({
        MAYFLY_HOST: '0.0.0.0',
        MAYFLY_TRUSTED_PROXIES: '10.0.0.0/8',
        MAYFLY_PUBLIC_URL: 'https://b.example',
      }),
    ).toEqual([]);
  });

  test('every one says what it sets', () => {
    for (const { variable, says } of settingRows()) expect(says.length, variable).toBeGreaterThan(10);
  });
});
