import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { decodeJwt, decodeProtectedHeader } from 'jose';
import { afterAll, beforeAll, beforeEach, expect, test, vi } from 'vitest';
import { freePort } from '../../test/support/free-port.ts';
import { createDevIssuer, type DevIssuer } from './dev/issuer.ts';
import { type DevState, writeDevState } from './dev-state.ts';
import { signTaskEvent, signTaskRequest } from './task.ts';

let folder: string;
let issuer: DevIssuer;
let state: DevState;

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'mayfly-task-'));
  const dir = join(folder, '.mayfly');
  mkdirSync(dir, { mode: 0o700 });
  const port = await freePort();
  issuer = await createDevIssuer({ dir, port });
  await issuer.start();
  state = { url: 'http://127.0.0.1:7420', issuer_url: `http://127.0.0.1:${port}`, postgres_port: 7432 };
});
beforeEach(() => {
  vi.stubEnv('MAYFLY_DIR', join(folder, '.mayfly'));
  vi.stubEnv('MAYFLY_URL', undefined);
  writeDevState(state);
});
afterAll(async () => {
  await issuer?.stop();
  rmSync(folder, { recursive: true, force: true });
});

/** What the signed request says of the param `v`. */
async function signed(value: string): Promise<unknown> {
  const request = await signTaskRequest(
    {
      purpose: 'reconcile.invoices',
      entitlement: ['ledger-db/read-invoices'],
      workload: 'agent-recon',
      subject: 'user:dev',
      ttl: '60',
      param: [`v=${value}`],
    },
    'A'.repeat(43),
  );
  const payload: unknown = JSON.parse(Buffer.from(request.split('.')[1] ?? '', 'base64url').toString());
  expect(payload).toMatchObject({ authorization_details: [{ params: {} }] });
  const { authorization_details: details } = payload as { authorization_details: [{ params: { v: unknown } }] };
  return details[0].params.v;
}

test.each([
  '007',
  '-007',
  '-0',
  '+1',
  '1e3',
  '0x10',
  '0b1',
  '1.0',
  '1.5',
  '.5',
  '1_000',
  ' 7',
  '9007199254740992',
  '-9007199254740993',
  '12345678901234567890',
  'NaN',
  'Infinity',
  'True',
  'null',
  'a=b',
  '',
])('--param v=%s is signed as the text that it is', async (text) => {
  expect(await signed(text)).toBe(text);
});

test.each([
  ['7', 7],
  ['0', 0],
  ['-12', -12],
  ['9007199254740991', Number.MAX_SAFE_INTEGER],
  ['true', true],
  ['false', false],
])('--param v=%s is signed as a value of its type', async (text, value) => {
  expect(await signed(text)).toBe(value);
});

const wanted = {
  ...{ purpose: 'reconcile.invoices', entitlement: ['ledger-db/read-invoices'], workload: 'agent-recon' },
  ...{ subject: 'user:dev', ttl: '60' },
};

test.each(['0', '2', '16'])('--max-depth %s is signed', async (maxDepth) => {
  const claims = decodeJwt(await signTaskRequest({ ...wanted, maxDepth }, 'A'.repeat(43)));
  expect(claims).toMatchObject({ task: { max_depth: Number(maxDepth) } });
});

test.each(['17', '-1', '1.5', '', 'x'])('--max-depth %s is refused', async (maxDepth) => {
  await expect(signTaskRequest({ ...wanted, maxDepth }, 'A'.repeat(43))).rejects.toThrow('--max-depth');
});

test('an event has exactly the claims of the contract', async () => {
  const event = await signTaskEvent('task_1', 'phase', { phase: 'closing', reason: 'all is matched' });
  expect(decodeProtectedHeader(event)).toMatchObject({ alg: 'ES256', typ: 'agent-task-event+jwt' });
  const { iat = 0, ...claims } = decodeJwt(event);
  expect(claims).toEqual({
    ...{ iss: `${state.issuer_url}/orchestrator`, aud: state.url, jti: expect.any(String), exp: iat + 300 },
    ...{ task_id: 'task_1', op: 'phase', phase: 'closing', reason: 'all is matched' },
  });
});

test('an event that says nothing is refused', async () => {
  await expect(signTaskEvent('task_1', 'suspend', {})).rejects.toThrow('The dev issuer refused');
});
