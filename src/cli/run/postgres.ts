import type { Credential } from '../../client/index.ts';
import { environmentWithout, type Handover } from './handover.ts';
import { makePrivateFolder } from './private-folder.ts';

/**
 * A Postgres credential in libpq's variables, with the password in a file that only this user can read.
 * @param inEnvironment in `PGPASSWORD` and `DATABASE_URL` too.
 */
export function handOverPostgres(credential: Credential, inEnvironment: boolean): Handover {
  const text = (name: string) => {
    const value = credential[name];
    return typeof value === 'string' || typeof value === 'number' ? String(value) : '';
  };
  const folder = makePrivateFolder();
  const line = ['host', 'port', 'database', 'username', 'password'].map((name) => text(name).replace(/[\\:]/g, '\\$&'));
  const env: NodeJS.ProcessEnv = {
    ...environmentWithout(/^PG[A-Z]+$/),
    PGHOST: text('host'),
    PGPORT: text('port'),
    PGDATABASE: text('database'),
    PGUSER: text('username'),
    PGSSLMODE: text('sslmode'),
    PGPASSFILE: folder.write('pgpass', `${line.join(':')}\n`),
  };
  if (text('ca_pem') !== '') env['PGSSLROOTCERT'] = folder.write('ca.pem', text('ca_pem'));
  if (inEnvironment) Object.assign(env, { PGPASSWORD: text('password'), DATABASE_URL: text('url') });
  return { env, remove: () => folder.remove() };
}
