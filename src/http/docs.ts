import { readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { z } from 'zod';
import { MayflyError } from '../domain/errors.ts';
import { DOCS_POLICY } from './headers.ts';
import type { Page } from './page.ts';
import { noBody } from './route.ts';
import { writeText } from './write.ts';

const HTML = `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Mayfly API</title>
<link rel="stylesheet" href="/docs/swagger-ui.css">
<link rel="icon" type="image/png" href="/docs/favicon-32x32.png">
</head>
<body>
<div id="swagger-ui"></div>
<script src="/docs/swagger-ui-bundle.js"></script>
<script src="/docs/init.js"></script>
</body>
</html>
`;

// `validatorUrl: null`: else the page would show our document to a validator on the Internet.
const INIT = `window.SwaggerUIBundle({ url: '/openapi.json', dom_id: '#swagger-ui', deepLinking: true, validatorUrl: null });
`;

/** The only files that are served, and what they are. */
const assets: Readonly<Record<string, string>> = {
  'swagger-ui.css': 'text/css; charset=utf-8',
  'swagger-ui-bundle.js': 'text/javascript; charset=utf-8',
  'favicon-32x32.png': 'image/png',
};

const files = new Map<string, Promise<Buffer>>();

/** Found where the package is installed, read once. */
function readAsset(name: string): Promise<Buffer> {
  const reading =
    files.get(name) ??
    readFile(join(dirname(createRequire(import.meta.url).resolve('swagger-ui-dist/package.json')), name));
  files.set(name, reading);
  return reading;
}

const page: Page = {
  method: 'get',
  path: '/docs',
  name: 'readDocs',
  tag: 'broker',
  summary: 'This document, for people',
  body: noBody,
  answers: { 200: { says: 'A page.', types: ['text/html'] } },
  refusals: [],
  show: ({ response }) => {
    response.setHeader('Content-Security-Policy', DOCS_POLICY);
    writeText(response, 200, 'text/html; charset=utf-8', HTML);
  },
};

const asset: Page = {
  method: 'get',
  path: '/docs/{asset}',
  name: 'readDocsAsset',
  tag: 'broker',
  summary: 'A script, sheet or picture of the page',
  params: z.object({ asset: z.string().meta({ example: 'swagger-ui.css' }) }),
  body: noBody,
  answers: { 200: { says: 'The file.', types: ['text/css', 'text/javascript', 'image/png'] } },
  refusals: ['not_found'],
  show: async ({ response, params }) => {
    const name = String(params['asset']);
    if (name === 'init.js') return writeText(response, 200, 'text/javascript; charset=utf-8', INIT);
    const type = Object.hasOwn(assets, name) ? assets[name] : undefined;
    if (type === undefined) throw new MayflyError('not_found');
    writeText(response, 200, type, await readAsset(name));
  },
};

export const docsPages: readonly Page[] = [page, asset];
