import type { Issued } from '../../client/index.ts';
import { CliError } from '../fail.ts';
import { handOverAws } from './aws.ts';
import { readAwsKeys } from './aws-keys.ts';
import type { Handover } from './handover.ts';
import { handOverPostgres } from './postgres.ts';

/**
 * Lays a credential for the child.
 * @param inEnvironment in plain environment variables too. @param askedAt When it was asked for, by `performance.now()`.
 * @throws CliError for a credential of another kind.
 */
export async function handOver(issued: Issued, inEnvironment: boolean, askedAt: number): Promise<Handover> {
  const { credential, grant } = issued;
  const keys = readAwsKeys(issued);
  if (keys !== undefined) return await handOverAws(keys, grant, inEnvironment, askedAt);
  if ('username' in credential && 'database' in credential) return handOverPostgres(credential, inEnvironment);
  throw new CliError('`mayfly run` hands over Postgres and AWS credentials; this one is of another kind.');
}
