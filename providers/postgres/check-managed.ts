import { z } from 'zod';
import type { CheckStep } from '../../src/provider.ts';
import type { Target } from './target.ts';

const surveySchema = z.object({
  mode: z.string(),
  owner: z.string(),
  superuser: z.boolean(),
  login: z.boolean(),
  createrole: z.boolean(),
  signals: z.boolean(),
  reads_stats: z.boolean(),
  members: z.array(z.string()),
  uses_templates: z.array(z.string()),
  lacks_templates: z.array(z.string()),
  roles: z.int(),
  max_roles: z.int().nullable(),
});
type Survey = z.infer<typeof surveySchema>;

const poolSchema = z.record(z.string(), z.object({ size: z.int(), lent: z.int(), resting: z.int(), stained: z.int() }));

/** What only the modes for managed services have. @throws ProviderError */
export async function managedSteps(
  target: Target,
  template: string | undefined,
  signal: AbortSignal,
): Promise<readonly CheckStep[]> {
  const { mode } = target.config;
  if (mode === 'definer') {
    return [];
  }
  return target.issuing.useTwice(signal, async ({ connection }) => {
    const [row] = await connection.query('surveying', 'SELECT mayfly.survey_managed() AS survey', [], signal);
    const steps = owner(surveySchema.parse(row?.['survey']), mode);
    if (mode === 'pool' && template !== undefined) {
      const [pools] = await connection.query('surveying', 'SELECT mayfly.survey_pool() AS pools', [], signal);
      steps.push(pool(template, poolSchema.parse(pools?.['pools'])));
    }
    return steps;
  });
}

function owner(survey: Survey, mode: string): CheckStep[] {
  const faults = [
    ...(survey.mode === mode ? [] : [`the target is prepared for the mode ${survey.mode}`]),
    ...(survey.superuser ? ['it is a superuser'] : []),
    ...(survey.login ? ['it may log in'] : []),
    ...(survey.createrole ? [] : ['it lacks CREATEROLE']),
    ...(survey.signals ? [] : ['it lacks pg_signal_backend: no session could be ended']),
    ...(survey.uses_templates.length === 0 ? [] : [`it has the rights of ${survey.uses_templates.join(', ')} itself`]),
    ...(survey.lacks_templates.length === 0
      ? []
      : [`it may not give away ${survey.lacks_templates.join(', ')} (mayfly target prepare)`]),
  ];
  return [
    {
      step: 'owner',
      ok: faults.length === 0,
      says: `${survey.owner}, the owner of the functions, ${faults.length === 0 ? 'has what it needs and no more' : `: ${faults.join('; ')}`}`,
    },
    {
      step: 'owner_members',
      ok: true,
      says:
        survey.members.length === 0
          ? `nobody is a member of ${survey.owner}`
          : `warning: members of ${survey.owner}, who could undo what its functions refuse: ${survey.members.join(', ')}`,
    },
    ...(survey.reads_stats
      ? []
      : [
          {
            step: 'standbys_visible',
            ok: false,
            says: `${survey.owner} lacks pg_monitor: neither a connected standby would show, nor what other grants do inside code of an ended role`,
          },
        ]),
    ...(survey.max_roles === null
      ? []
      : [
          {
            step: 'roles',
            ok: survey.roles < survey.max_roles,
            says: `${survey.roles} of at most ${survey.max_roles} minted roles are there`,
          },
        ]),
  ];
}

function pool(template: string, pools: z.infer<typeof poolSchema>): CheckStep {
  const seen = pools[template] ?? { size: 0, lent: 0, resting: 0, stained: 0 };
  const free = seen.size - seen.lent - seen.resting - seen.stained;
  return {
    step: 'pool',
    ok: free > 0 && seen.stained === 0,
    says: `of ${seen.size} roles ${seen.lent} are lent, ${seen.resting} rest, ${seen.stained} are not as they should be`,
  };
}
