import type { Lie } from '../provider/index.ts';

/** One message of the server: its type, its length, what it holds. */
function message(type: string, body: Buffer = Buffer.alloc(0)): Buffer {
  const length = Buffer.alloc(4);
  length.writeInt32BE(body.length + 4);
  return Buffer.concat([Buffer.from(type), length, body]);
}

const ready = message('Z', Buffer.from('I'));
const done = (tag: string): Buffer => message('C', Buffer.from(`${tag}\0`));
const failed = (code: string, says: string): Buffer =>
  message('E', Buffer.from(`SERROR\0VERROR\0C${code}\0M${says}\0\0`));

/** The messages of a client in one piece of what it sent. What has no type is how it greets. */
function* typesIn(piece: Buffer): Generator<string> {
  for (let at = 0; at + 5 <= piece.length; ) {
    const type = piece[at] === 0 ? '' : String.fromCharCode(piece[at] ?? 0);
    yield type;
    at += type === '' ? piece.readInt32BE(at) : 1 + piece.readInt32BE(at + 1);
  }
}

/** Answers each message of a client as a server would that is in that mind: anybody may log in, and every query comes to this. */
function server(query: Buffer): Lie['answer'] {
  return (piece) =>
    Buffer.concat(
      [...typesIn(piece)].map((type) => {
        if (type === '' || type === 'p') return Buffer.concat([message('R', Buffer.alloc(4)), ready]);
        if (type === 'P') return message('1');
        if (type === 'B') return message('2');
        if (type === 'D') return message('n');
        if (type === 'E') return query;
        if (type === 'S') return ready;
        return type === 'Q' ? Buffer.concat([query, ready]) : Buffer.alloc(0);
      }),
    );
}

/** Answers in the protocol of PostgreSQL that are not true. */
export const postgresLies: readonly Lie[] = [
  { what: 'no rows', isEmptyList: true, answer: server(done('SELECT 0')) },
  { what: '42704, there is no such object', answer: server(failed('42704', 'role does not exist')) },
];
