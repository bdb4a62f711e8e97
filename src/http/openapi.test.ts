import { execFile } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { problemCodes } from '../domain/problems.ts';
import { startTestApp, type TestApp } from './testing/test-app.ts';

interface Document {
  readonly openapi: string;
  readonly info: { readonly version: string };
  readonly paths: Readonly<Record<string, Readonly<Record<string, OperationObject>>>>;
  readonly components: { readonly schemas: Readonly<Record<string, unknown>> };
}

interface OperationObject {
  readonly operationId: string;
  readonly security: readonly unknown[];
  readonly requestBody?: { readonly required: boolean };
  readonly responses: Readonly<
    Record<string, { readonly description: string; readonly content?: Readonly<Record<string, unknown>> }>
  >;
}

let app: TestApp;
let document: Document;
beforeAll(async () => {
  app = await startTestApp();
  document = (await app.ask('GET', '/openapi.json', { token: false })).body as Document;
});
afterAll(() => app.stop());

/** `GET /v1/tasks/{id}` for each route that Express really has. */
function routesOfExpress(): string[] {
  return app.app.router.stack.flatMap(({ route }) =>
    route === undefined
      ? []
      : route.stack
          // The handler of all methods is the one that refuses the rest.
          .filter((layer) => Boolean(layer.method))
          .map((layer) => `${layer.method.toUpperCase()} ${route.path.replace(/:(\w+)/g, '{$1}')}`),
  );
}

function operations(): [string, OperationObject][] {
  return Object.entries(document.paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, operation]): [string, OperationObject] => [
      `${method.toUpperCase()} ${path}`,
      operation,
    ]),
  );
}

describe('the OpenAPI document', () => {
  test('names each route of the app, and the app has each route that it names', () => {
    const inDocument = operations().map(([name]) => name);
    expect(inDocument.length).toBeGreaterThan(12);
    expect(routesOfExpress().sort()).toEqual(inDocument.sort());
  });

  test('is version 3.1 and tells our own version', () => {
    expect(document.openapi).toBe('3.1.0');
    expect(document.info.version).toMatch(/^\d+\.\d+\.\d+/);
  });

  test('asks for a token wherever the app does, and nowhere else', async () => {
    for (const [name, operation] of operations()) {
      const [method = '', path = ''] = name.split(' ');
      const body = operation.requestBody?.required === true ? { request: 'a.b.c', entitlement: 'x/y' } : undefined;
      const asked = path.endsWith('/renew')
        ? { ttl_seconds: 1 }
        : path.endsWith('/grants')
          ? { entitlement: 'x/y' }
          : /\/(write-off|pause|suspend|confirm)$/.test(path)
            ? { reason: 'x' }
            : path.startsWith('/v1/approvals')
              ? { decision: 'deny', reason: 'x' }
              : path.endsWith('/kill')
                ? { scope: 'all', reason: 'x' }
                : path.startsWith('/v1/catalog/')
                  ? { files: {} }
                  : path.endsWith('/whoami')
                    ? { token: 'a.b.c' }
                    : path.endsWith('/signals')
                      ? { kind: 'heartbeat', id: 'x', occurred_at: '2026-01-05T10:00:00Z' }
                      : path.endsWith('/children')
                        ? { delegation: 'a.b.c' }
                        : path.endsWith('/events')
                          ? { event: 'a.b.c' }
                          : path.startsWith('/access/')
                            ? {
                                subject: { type: 'x', id: 'x' },
                                action: { name: 'x' },
                                resource: { type: 'x', id: 'x' },
                              }
                            : { request: 'a.b.c' };
      const sent = body ? asked : undefined;
      const reply = await app.ask(method, path.replace(/\{\w+\}/g, 'x'), { token: false, body: sent });
      const missing = Object(reply.body)['code'] === 'workload_token_missing';
      expect([name, missing]).toEqual([name, operation.security.length > 0]);
    }
  });

  test('takes the very limits that validate', () => {
    expect(document.components.schemas['RenewGrant']).toEqual({
      type: 'object',
      properties: {
        ttl_seconds: expect.objectContaining({ type: 'integer', minimum: 1, maximum: 86_400 }),
        delivery: expect.objectContaining({ required: ['jwk'], additionalProperties: false }),
      },
      required: ['ttl_seconds'],
      additionalProperties: false,
    });
    const wait = JSON.stringify(document.paths['/v1/tasks/{id}']);
    expect(wait).toContain('"minimum":0,"maximum":60');
  });

  test('tells each refusal under its status', () => {
    const known = new Set<string>(problemCodes);
    for (const [, operation] of operations()) {
      for (const [status, response] of Object.entries(operation.responses)) {
        if (Number(status) < 400 || response.content?.['application/problem+json'] === undefined) continue;
        for (const code of response.description.split(', ')) expect(known).toContain(code.replaceAll('`', ''));
      }
    }
    const issue = document.paths['/v1/tasks/{id}/grants']?.['post'];
    expect(issue?.responses['403']?.description).toContain('`denied_by_policy`');
    expect(issue?.responses['422']?.description).toContain('`impossible_value`');
    expect(Object.keys(issue?.responses ?? {})).toEqual(
      expect.arrayContaining(['201', '400', '401', '403', '404', '409', '413', '415', '422', '503', '500']),
    );
  });

  test('passes the linter', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'mayfly-openapi-'));
    try {
      await writeFile(join(folder, 'openapi.json'), JSON.stringify(document));
      // A loopback address is what this very broker is called; and a browser that signs in is only sent on.
      const rules = '  no-server-example.com: off\n  operation-2xx-response: off\n';
      await writeFile(join(folder, 'redocly.yaml'), `extends: [recommended]\nrules:\n${rules}`);
      const cli = join(dirname(createRequire(import.meta.url).resolve('@redocly/cli/package.json')), 'bin', 'cli.js');
      const { stdout } = await promisify(execFile)(process.execPath, [cli, 'lint', 'openapi.json', '--format=json'], {
        cwd: folder,
        // Neither telemetry nor a look for updates.
        env: {
          PATH: process.env['PATH'],
          HOME: folder,
          CI: 'true',
          REDOCLY_TELEMETRY: 'off',
          REDOCLY_SUPPRESS_UPDATE_NOTICE: 'true',
        },
        maxBuffer: 16 << 20,
      }).catch((error: { stdout: string }) => error);
      const said = JSON.parse(stdout) as { problems: { message: string; location: { pointer?: string }[] }[] };
      expect(said.problems.map(({ message, location }) => `${message} ${location[0]?.pointer ?? ''}`)).toEqual([]);
    } finally {
      await rm(folder, { recursive: true });
    }
  });
});
