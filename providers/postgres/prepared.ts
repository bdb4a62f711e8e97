import type { Target } from './target.ts';

/**
 * The commands by which a DBA ends prepared transactions that hold the role: no session is left to end, and no function
 * may roll them back. Empty when there are none, to be put behind a message.
 * @throws ProviderError
 */
export async function preparedSays(target: Target, oid: number | null, signal: AbortSignal): Promise<string> {
  if (oid === null) {
    return '';
  }
  const [row] = await target.revoking.useTwice(signal, ({ connection }) =>
    connection.query<{ commands: string | null }>(
      'looking for prepared transactions',
      'SELECT mayfly.prepared($1, $2) AS commands',
      [target.context.installation, oid],
      signal,
    ),
  );
  return row === undefined || row.commands === null
    ? ''
    : `: it left prepared transactions; a superuser must run ${row.commands}`;
}
