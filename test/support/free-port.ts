import { randomInt } from 'node:crypto';
import { freePort as take } from '../../src/cli/dev/free-port.ts';
import { DevError } from '../../src/cli/dev/dev-error.ts';

/**
 * A port of the loopback address that nobody listens on now. It lies below those that systems give to outgoing connections: the
 * suites make these by the hundred, and one could have taken it before its owner listens.
 */
export async function freePort(): Promise<number> {
  for (;;) {
    try {
      return await take(randomInt(10_000, 32_768), 'A test');
    } catch (error) {
      if (!(error instanceof DevError && error.code === 'port_taken')) throw error;
    }
  }
}
