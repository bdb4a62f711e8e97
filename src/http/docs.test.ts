import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { startTestApp, type TestApp } from './testing/test-app.ts';

let app: TestApp;
beforeAll(async () => {
  app = await startTestApp();
});
afterAll(() => app.stop());

const get = (path: string) => app.ask('GET', path, { token: false });

describe('the page of the API', () => {
  test('loads what it needs from here, and nothing stands inline', async () => {
    const { status, headers, text } = await get('/docs');
    expect([status, headers['content-type']]).toEqual([200, 'text/html; charset=utf-8']);
    const needed = [...text.matchAll(/(?:src|href)="([^"]+)"/g)].map(([, address]) => address ?? '');
    expect(needed.length).toBe(4);
    for (const address of needed) expect((await get(address)).status).toBe(200);
    expect(text).not.toMatch(/<script>|<style|style=|\son\w+=|https?:/);
  });

  test('may run its own scripts and ask this broker, and nothing outside', async () => {
    const policy = String((await get('/docs')).headers['content-security-policy']);
    expect(policy.split(';')).toEqual([
      "default-src 'none'",
      "script-src 'self'",
      "style-src 'self'",
      "img-src 'self' data:",
      "connect-src 'self'",
      "base-uri 'none'",
      "form-action 'none'",
      "frame-ancestors 'none'",
    ]);
  });

  test('shows our document, and to no validator elsewhere', async () => {
    const { text } = await get('/docs/init.js');
    expect(text).toContain("url: '/openapi.json'");
    expect(text).toContain('validatorUrl: null');
  });

  test('is served with the right types', async () => {
    const types = await Promise.all(
      ['swagger-ui.css', 'swagger-ui-bundle.js', 'favicon-32x32.png', 'init.js'].map(
        async (name) => (await get(`/docs/${name}`)).headers['content-type'],
      ),
    );
    expect(types).toEqual([
      'text/css; charset=utf-8',
      'text/javascript; charset=utf-8',
      'image/png',
      'text/javascript; charset=utf-8',
    ]);
  });

  test.each([
    'package.json',
    'index.html',
    'swagger-initializer.js',
    'constructor',
    '__proto__',
    '..%2f..%2fpackage.json',
    'swagger-ui.css.map',
  ])('serves no other file: %s', async (name) => {
    expect((await get(`/docs/${name}`)).status).toBe(404);
  });
});
