import { once } from 'node:events';
import { createServer } from 'node:net';
import { expect, test } from 'vitest';
import { portTaken } from './dev/dev-error.ts';
import { explain } from './fail.ts';

test('a listener that is taken: one sentence with the address and what to do', async () => {
  const [other, own] = [createServer().listen(0, '127.0.0.1'), createServer()];
  try {
    await once(other, 'listening');
    const address = other.address();
    const port = typeof address === 'object' && address !== null ? address.port : 0;
    const refused = once(own, 'error');
    own.listen(port, '127.0.0.1');
    const [error] = await refused;
    expect(explain(error)).toBe(
      `The broker cannot listen on 127.0.0.1:${port}, since another program does: stop that one ` +
        `(\`lsof -nP -iTCP:${port} -sTCP:LISTEN\` finds it), or choose another port with MAYFLY_PORT.`,
    );
  } finally {
    other.close();
    own.close();
  }
});

test('an IPv6 address is told in brackets', () => {
  expect(portTaken('The broker', 7420, { host: '::1' }).message).toContain('on [::1]:7420, ');
});
