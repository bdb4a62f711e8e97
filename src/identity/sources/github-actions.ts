import { z } from 'zod';
import type { GithubActionsSource, GithubRepository } from '../../catalog/types.ts';
import { MayflyError } from '../../domain/errors.ts';
import { printable } from '../token-claims.ts';
import { readTokenClaims, requireType, type Verifier } from './source.ts';

const digits = z.string().regex(/^[0-9]{1,20}$/, 'must be digits');

const runSchema = z.object({
  repository_id: digits,
  repository_owner_id: digits,
  job_workflow_ref: printable(1000).optional(),
  environment: printable(1000).optional(),
  ref: printable(1000).optional(),
  run_id: digits,
  run_attempt: digits,
});

type Run = z.output<typeof runSchema>;

/**
 * Tokens of workflow runs, told by ids: names of repositories and owners can change hands. `sub` is not looked at; its
 * form is the repository's to configure.
 */
export const believeGithubActions: Verifier<GithubActionsSource> = (source, token) => {
  requireType(token, [undefined, 'JWT']);
  const run = readTokenClaims(runSchema, token.claims);
  const found = source.repositories.find((repository) => fits(run, repository));
  if (found === undefined) {
    throw new MayflyError('workload_token_invalid', 'The catalog knows no workload for this workflow run.');
  }
  const instance = { id: `${run.run_id}/${run.run_attempt}`, details: {} };
  return { subject: githubSubject(found), instance };
};

/** `<owner id>/<repository id>`, and `/<as>` where the catalog tells workloads of one repository apart. */
function githubSubject({ repositoryOwnerId, repositoryId, as }: GithubRepository): string {
  return [repositoryOwnerId, repositoryId, ...(as === undefined ? [] : [as])].join('/');
}

function fits(run: Run, wanted: GithubRepository): boolean {
  const { repositoryId, repositoryOwnerId, jobWorkflowRef, environment, ref } = wanted;
  return (
    run.repository_id === repositoryId &&
    run.repository_owner_id === repositoryOwnerId &&
    (jobWorkflowRef === undefined || run.job_workflow_ref === jobWorkflowRef) &&
    (environment === undefined || run.environment === environment) &&
    (ref === undefined || run.ref === ref)
  );
}
