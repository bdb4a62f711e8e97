import { createInterface } from 'node:readline';
import express from 'express';
import { importJWK, type JWK, jwtVerify } from 'jose';

/** One route that verifies one ES256 token and answers. In a process of its own, as the broker is; its parent's first line is the key. */
const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const { value } = await lines.next();
const { jwk, audience } = JSON.parse(String(value)) as { jwk: JWK; audience: string };
const key = await importJWK(jwk, 'ES256');

const app = express();
app.post('/', express.json(), async (request, response) => {
  const token = request.get('authorization')?.slice('Bearer '.length) ?? '';
  const { payload } = await jwtVerify(token, key, { audience, algorithms: ['ES256'] });
  response.status(201).json({ subject: payload.sub });
});
const server = app.listen(0, '127.0.0.1', () => {
  const address = server.address();
  console.log(typeof address === 'object' ? address?.port : '');
});
await lines.next();
// Its parent is gone.
process.exit(0);
