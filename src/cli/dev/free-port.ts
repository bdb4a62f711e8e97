import { createServer } from 'node:net';
import { type PortUse, portTaken, systemCode } from './dev-error.ts';

/**
 * The port itself if nobody listens on it (0: any free one). It may be taken a moment later: whoever
 * listens must still look.
 * @param what who wants it, for the message.
 * @throws DevError `port_taken`
 */
export async function freePort(port: number, what: string, use: PortUse = {}): Promise<number> {
  const server = createServer();
  return new Promise((resolve, reject) => {
    server.once('error', (error) => {
      reject(systemCode(error) === 'EADDRINUSE' ? portTaken(what, port, use, error) : error);
    });
    server.listen({ port, host: use.host ?? '127.0.0.1', exclusive: true }, () => {
      const address = server.address();
      server.close(() => resolve(typeof address === 'object' && address !== null ? address.port : port));
    });
  });
}
