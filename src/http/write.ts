import type { ServerResponse } from 'node:http';

/** What a route answers. */
export interface Answer {
  readonly status: number;
  /** Becomes JSON. */
  readonly body: unknown;
  readonly headers?: Readonly<Record<string, string>>;
}

/** Writes an answer, unless its caller is gone. */
export function writeAnswer(response: ServerResponse, answer: Answer, contentType = 'application/json'): void {
  if (response.destroyed) return;
  for (const [name, value] of Object.entries(answer.headers ?? {})) response.setHeader(name, value);
  writeText(response, answer.status, contentType, JSON.stringify(answer.body));
}

export function writeText(response: ServerResponse, status: number, contentType: string, text: string | Buffer): void {
  response.writeHead(status, { 'Content-Type': contentType, 'Content-Length': Buffer.byteLength(text) });
  response.end(text);
}

/** Waits until the answer is written or its caller is gone. Answers whether it was written. */
export async function isWritten(response: ServerResponse): Promise<boolean> {
  if (!response.closed) await new Promise((resolve) => response.once('close', resolve));
  return response.writableFinished;
}
