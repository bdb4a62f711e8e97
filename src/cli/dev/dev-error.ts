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

/** @param what who wanted the port, e.g. `The dev issuer`. */
export function portTaken(what: string, port: number, cause?: unknown): DevError {
  return new DevError(
    'port_taken',
    `${what} cannot listen on 127.0.0.1:${port}: another program has that port. ` +
      `Find it with \`lsof -nP -iTCP:${port} -sTCP:LISTEN\` and stop it, or choose another port.`,
    cause,
  );
}

/** The `code` of a system error (`ENOENT`, `EADDRINUSE`), or undefined for any other value. */
export function systemCode(error: unknown): string | undefined {
  return error instanceof Error && 'code' in error && typeof error.code === 'string' ? error.code : undefined;
}
