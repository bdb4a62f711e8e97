import { createHash, createHmac, pbkdf2Sync } from 'node:crypto';
import { once } from 'node:events';
import { connect as dial, type Socket } from 'node:net';

/** Starts a login and stops before the client's proof, which the returned function sends. */
export async function halfALogin(
  port: number,
  login: Readonly<Record<string, unknown>>,
): Promise<() => Promise<'let in' | 'refused'>> {
  const { username, password, database } = login;
  const socket = dial(port, '127.0.0.1');
  await once(socket, 'connect');
  const parameters = Buffer.from(`user\0${String(username)}\0database\0${String(database)}\0\0`);
  socket.write(Buffer.concat([int32(parameters.length + 8), int32(196_608), parameters]));
  const messages = read(socket);
  await messages('R');
  const bare = 'n=,r=nonce';
  const first = Buffer.from(`n,,${bare}`);
  socket.write(message('p', Buffer.concat([Buffer.from('SCRAM-SHA-256\0'), int32(first.length), first])));
  const challenge = (await messages('R')).subarray(4).toString();
  const [, nonce = '', salt = '', iterations = ''] = /^r=([^,]+),s=([^,]+),i=(\d+)/.exec(challenge) ?? [];
  return async () => {
    const salted = pbkdf2Sync(String(password), Buffer.from(salt, 'base64'), Number(iterations), 32, 'sha256');
    const clientKey = createHmac('sha256', salted).update('Client Key').digest();
    const stored = createHash('sha256').update(clientKey).digest();
    const unsigned = `c=biws,r=${nonce}`;
    const signature = createHmac('sha256', stored).update(`${bare},${challenge},${unsigned}`).digest();
    const proof = Buffer.from(clientKey.map((byte, index) => byte ^ (signature[index] ?? 0))).toString('base64');
    socket.write(message('p', Buffer.from(`${unsigned},p=${proof}`)));
    // ReadyForQuery, or the end.
    const answer = await messages('Z').then(
      () => 'let in' as const,
      () => 'refused' as const,
    );
    socket.destroy();
    return answer;
  };
}

function int32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeInt32BE(value);
  return bytes;
}

function message(type: string, body: Buffer): Buffer {
  return Buffer.concat([Buffer.from(type), int32(body.length + 4), body]);
}

/** Gives the bodies of messages of the server, of the type asked for; rejects when the connection ends or it errs. */
function read(socket: Socket): (type: string) => Promise<Buffer> {
  let bytes = Buffer.alloc(0);
  let over = false;
  let wake = (): void => {};
  socket.on('data', (more) => {
    bytes = Buffer.concat([bytes, Buffer.from(more)]);
    wake();
  });
  const ended = (): void => {
    over = true;
    wake();
  };
  socket.on('error', ended).on('close', ended);
  return async (type) => {
    for (;;) {
      while (bytes.length >= 5 && bytes.length >= 1 + bytes.readInt32BE(1)) {
        const found = String.fromCharCode(bytes[0] ?? 0);
        const body = bytes.subarray(5, 1 + bytes.readInt32BE(1));
        bytes = bytes.subarray(1 + bytes.readInt32BE(1));
        if (found === type) return body;
        if (found === 'E') throw new Error(body.toString());
      }
      if (over) throw new Error('closed');
      await new Promise<void>((resolve) => {
        wake = resolve;
      });
    }
  };
}
