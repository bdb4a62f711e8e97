export type DevErrorCode =
  | 'already_running'
  | 'folder_refused'
  | 'secret_file_refused'
  | 'port_taken'
  | 'platform_unsupported'
  | 'server_failed';

/**
 * Why dev mode cannot start. The message is for the person at the terminal: what is wrong, where, and what to do.
 * Not a `MayflyError`: no caller over HTTP ever meets it.
 */
export class DevError extends Error {
  readonly code: DevErrorCode;

  constructor(code: DevErrorCode, message: string, cause?: unknown) {
    super(message, cause === undefined ? undefined : { cause });
    this.name = 'DevError';
    this.code = code;
  }
}

export interface PortUse {
  /** Default: 127.0.0.1. */
  readonly host?: string;
  /** What gives another port, e.g. `MAYFLY_PORT`. */
  readonly setting?: string;
}

/** @param what who wanted the port, e.g. `The dev issuer`. */
export function portTaken(what: string, port: number, use: PortUse = {}, cause?: unknown): DevError {
  const { host = '127.0.0.1', setting } = use;
  const address = `${host.includes(':') ? `[${host}]` : host}:${port}`;
  return new DevError(
    'port_taken',
    `${what} cannot listen on ${address}, since another program does: ` +
      `stop that one (\`lsof -nP -iTCP:${port} -sTCP:LISTEN\` finds it), ` +
      `or choose another port${setting === undefined ? '' : ` with ${setting}`}.`,
    cause,
  );
}

/** The `code` of a system error (`ENOENT`, `EADDRINUSE`), or undefined for any other value. */
export function systemCode(error: unknown): string | undefined {
  return error instanceof Error && 'code' in error && typeof error.code === 'string' ? error.code : undefined;
}
