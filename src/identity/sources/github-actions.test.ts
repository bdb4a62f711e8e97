import { describe, expect, it } from 'vitest';
import type { GithubRepository } from '../../catalog/types.ts';
import { times, trusting } from '../testing/sources.ts';
import { AUDIENCE, SECONDS } from '../testing/trust.ts';

const WORKFLOW = 'octo-org/octo-app/.github/workflows/deploy.yml@refs/heads/main';

const deploys: GithubRepository = {
  repositoryOwnerId: '65',
  repositoryId: '74',
  jobWorkflowRef: WORKFLOW,
  environment: 'production',
  ref: 'refs/heads/main',
  as: 'deploy',
};
const harness = (...repositories: readonly GithubRepository[]) =>
  trusting((key) => ({
    kind: 'github-actions',
    name: 'github',
    dev: false,
    issuer: 'https://token.actions.githubusercontent.com',
    jwks: { inline: { keys: [key.jwk] } },
    algorithms: ['ES256'],
    repositories,
  }));

// The example of GitHub's documentation.
const claims = {
  ...times,
  iss: 'https://token.actions.githubusercontent.com',
  aud: AUDIENCE,
  sub: 'repo:octo-org/octo-repo:environment:production',
  environment: 'production',
  ref: 'refs/heads/main',
  sha: 'example-sha',
  repository: 'octo-org/octo-repo',
  repository_owner: 'octo-org',
  actor_id: '12',
  repository_visibility: 'private',
  repository_id: '74',
  repository_owner_id: '65',
  run_id: '9001',
  run_number: '10',
  run_attempt: '2',
  runner_environment: 'github-hosted',
  actor: 'octocat',
  workflow: 'example-workflow',
  event_name: 'workflow_dispatch',
  job_workflow_ref: WORKFLOW,
};

describe('a token of a workflow run', () => {
  const { ask, believe } = harness(deploys);

  it('is a workload by ids, and the run with its attempt is the instance', async () => {
    expect(await believe(claims, { typ: 'JWT' })).toMatchObject({
      kind: 'workload',
      workload: { source: 'github', subject: '65/74/deploy' },
      instance: '9001/2',
      expiresAt: new Date((SECONDS + 600) * 1000),
    });
  });

  it.each<readonly [name: string, change: object, code: string]>([
    ['as it comes', {}, 'accepted'],
    ['of the repository under its new name', { sub: 'repo:new/name:ref:x', repository: 'new/name' }, 'accepted'],
    ['of another repository that took the name', { repository_id: '75' }, 'workload_token_invalid'],
    ['of another owner who took the name', { repository_owner_id: '66' }, 'workload_token_invalid'],
    ['with its id as a number', { repository_id: 74 }, 'workload_token_invalid'],
    ['with a zero before its id', { repository_id: '074' }, 'workload_token_invalid'],
    ['without its id', { repository_id: undefined }, 'workload_token_invalid'],
    ['without the id of its owner', { repository_owner_id: undefined }, 'workload_token_invalid'],
    ['of another workflow', { job_workflow_ref: WORKFLOW.replace('deploy', 'test') }, 'workload_token_invalid'],
    ['of that workflow on another branch', { job_workflow_ref: `${WORKFLOW}-2` }, 'workload_token_invalid'],
    ['of another environment', { environment: 'staging' }, 'workload_token_invalid'],
    ['of no environment', { environment: undefined }, 'workload_token_invalid'],
    ['of another branch', { ref: 'refs/heads/main2' }, 'workload_token_invalid'],
    ['of a pull request', { ref: 'refs/pull/1/merge' }, 'workload_token_invalid'],
    ['without run', { run_id: undefined }, 'workload_token_invalid'],
    ['without attempt', { run_attempt: undefined }, 'workload_token_invalid'],
    ['for GitHub’s usual audience', { aud: 'https://github.com/octo-org' }, 'workload_token_audience_wrong'],
    [
      'of an enterprise’s own issuer',
      { iss: 'https://token.actions.githubusercontent.com/octo' },
      'workload_token_issuer_unknown',
    ],
    ['that has expired', { exp: SECONDS - 5 }, 'workload_token_expired'],
  ])('%s', async (_name, change, code) => {
    expect(await ask({ ...claims, ...change })).toBe(code);
  });

  it('with the type of an access token', async () => {
    expect(await ask(claims, { typ: 'at+jwt' })).toBe('workload_token_type_wrong');
  });

  it('is what the first entry says that fits', async () => {
    const plain = { repositoryOwnerId: '65', repositoryId: '74' };
    const { believe: both } = harness(deploys, plain);
    expect(await both(claims)).toMatchObject({ workload: { subject: '65/74/deploy' } });
    expect(await both({ ...claims, environment: undefined })).toMatchObject({ workload: { subject: '65/74' } });
  });
});
