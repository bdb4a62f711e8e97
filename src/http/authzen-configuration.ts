import { z } from 'zod';
import type { Page } from './page.ts';
import { noBody } from './route.ts';
import { writeAnswer } from './write.ts';

const PATH = '/.well-known/authzen-configuration';

const configurationBody = z
  .strictObject({
    policy_decision_point: z.string(),
    access_evaluation_endpoint: z.string(),
    access_evaluations_endpoint: z.string(),
  })
  .meta({ id: 'AuthzenConfiguration', description: 'AuthZEN 1.0 metadata of the policy decision point.' });

export const authzenConfigurationPage: Page = {
  method: 'get',
  path: PATH,
  name: 'readAuthzenConfiguration',
  tag: 'access',
  summary: 'Where to ask for decisions (AuthZEN 1.0)',
  body: noBody,
  answers: { 200: { says: 'The metadata.', schema: configurationBody } },
  refusals: [],
  show: ({ deps, response }) => {
    const { public_url: url } = deps.config;
    const body: z.output<typeof configurationBody> = {
      policy_decision_point: url,
      access_evaluation_endpoint: `${url}/access/v1/evaluation`,
      access_evaluations_endpoint: `${url}/access/v1/evaluations`,
    };
    writeAnswer(response, { status: 200, body });
  },
};
