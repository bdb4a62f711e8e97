import { isUtf8 } from 'node:buffer';
import type { IncomingMessage } from 'node:http';
import { MayflyError } from '../domain/errors.ts';
import { parseStrictJson } from '../identity/strict-json.ts';
import { oneHeader } from './parse.ts';

const MAX_BODY_BYTES = 64 * 1024;
/** What is read and dropped of a refused body, so that its sender gets as far as reading the answer. */
const MAX_DROPPED_BYTES = 8 * 1024 * 1024;

/** The caller left before its request was whole. There is nobody to answer. */
export class CallerGone extends Error {}

/**
 * The body as JSON, or undefined when there is none.
 * @param mostBytes How large it may be.
 * @throws MayflyError `unsupported_media_type`, `body_too_large`, `malformed_json`, `duplicate_member`
 */
export async function readJson(request: IncomingMessage, mostBytes = MAX_BODY_BYTES): Promise<unknown> {
  if (!hasBody(request)) return undefined;
  const type = oneHeader(request, 'content-type') ?? '';
  const encoding = oneHeader(request, 'content-encoding') ?? 'identity';
  if (!/^application\/json\s*(;\s*charset="?utf-8"?\s*)?$/i.test(type) || !/^identity$/i.test(encoding)) {
    throw new MayflyError('unsupported_media_type');
  }
  const bytes = await readBytes(request, mostBytes);
  if (!isUtf8(bytes)) throw new MayflyError('malformed_json', 'The body is not UTF-8.');
  return parseStrictJson(bytes.toString('utf8'));
}

function hasBody(request: IncomingMessage): boolean {
  const length = request.headers['content-length'];
  return request.headers['transfer-encoding'] !== undefined || (length !== undefined && Number(length) !== 0);
}

async function readBytes(request: IncomingMessage, mostBytes: number): Promise<Buffer> {
  const tooLarge = () => new MayflyError('body_too_large', `It may have ${mostBytes} bytes.`);
  if (Number(request.headers['content-length'] ?? 0) > mostBytes) throw tooLarge();
  return await new Promise((resolve, reject) => {
    const chunks: Buffer[] = [];
    let size = 0;
    const settle = (done: () => void) => {
      request.off('data', onData).off('end', onEnd).off('error', onGone).off('close', onGone);
      done();
    };
    const onData = (chunk: Buffer) => {
      size += chunk.length;
      if (size > mostBytes) settle(() => reject(tooLarge()));
      else chunks.push(chunk);
    };
    const onEnd = () =>
      settle(() => resolve(chunks.length === 1 && chunks[0] !== undefined ? chunks[0] : Buffer.concat(chunks)));
    const onGone = () => settle(() => reject(new CallerGone()));
    request.on('data', onData).on('end', onEnd).on('error', onGone).on('close', onGone);
  });
}

/** Lets the rest of a refused body pass, within bounds: a connection closed in its face would lose the answer. */
export function dropBody(request: IncomingMessage): void {
  if (request.complete || request.destroyed) return;
  let left = MAX_DROPPED_BYTES;
  request.on('error', () => {});
  request.on('data', (chunk: Buffer) => {
    left -= chunk.length;
    if (left < 0) request.destroy();
  });
}
