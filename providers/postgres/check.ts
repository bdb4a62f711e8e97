import { randomUUID } from 'node:crypto';
import { z } from 'zod';
import { type CheckStep, ProviderError } from '../../src/provider.ts';
import { canary } from './canary.ts';
import { databases } from './check-databases.ts';
import { managedSteps } from './check-managed.ts';
import { checkStandbys } from './check-standbys.ts';
import { boundSteps } from './check-bound.ts';
import type { PostgresEntitlement } from './schema.ts';
import type { Target } from './target.ts';
import { width } from './width.ts';

const surveySchema = z.object({
  max_prepared_transactions: z.int(),
  public_creates_in: z.array(z.string()),
  public_temp: z.boolean(),
  public_functions_in_mayfly: z.int(),
  broker: z.object({ attributes: z.boolean(), member_of: z.array(z.string()) }),
  templates: z.record(
    z.string(),
    z.object({
      exists: z.boolean(),
      attributes: z.boolean().nullable(),
      member_of: z.array(z.string()),
      owns: z.int(),
      creates_in: z.array(z.string()),
    }),
  ),
});
type Survey = z.infer<typeof surveySchema>;

/** Seconds that the target's clock may be away. Deadlines are translated; beyond this something else is wrong. */
const tolerableSkew = 60;

/**
 * Looks at the target, then, with an entitlement, plays one life of it: mint, use, be refused, end, verify. Every
 * finding is a step; what could not be tried is a step that failed.
 */
export async function check(
  target: Target,
  entitlement: { readonly name: string; readonly config: PostgresEntitlement } | null,
  signal: AbortSignal,
): Promise<readonly CheckStep[]> {
  let steps: CheckStep[];
  let serverVersion: number;
  try {
    ({ steps, serverVersion } = await look(target, entitlement?.config.template, signal));
  } catch (error) {
    return [{ step: 'connect', ok: false, says: error instanceof ProviderError ? error.message : 'failed' }];
  }
  steps.push(...(await boundSteps(target, entitlement?.config ?? null, signal)));
  if (entitlement !== null) {
    steps.push(...(await width(target, entitlement.config, signal)));
    steps.push(...(await canary(target, entitlement.name, entitlement.config, randomUUID(), serverVersion, signal)));
  }
  return steps;
}

async function look(
  target: Target,
  template: string | undefined,
  signal: AbortSignal,
): Promise<{ steps: CheckStep[]; serverVersion: number }> {
  const { survey, status } = await target.issuing.useTwice(signal, async ({ connection, status: seen }) => {
    const [row] = await connection.query('surveying', 'SELECT mayfly.survey() AS survey', [], signal);
    return { survey: surveySchema.parse(row?.['survey']), status: seen };
  });
  const { offset, error } = target.clock.skew ?? { offset: 0, error: 0 };
  const version = `${Math.floor(status.server_version / 10_000)}.${status.server_version % 10_000}`;
  const steps = [
    {
      step: 'connect',
      ok: true,
      says: `${target.config.host}:${target.config.port}, TLS ${target.config.sslmode}, cluster ${status.system_identifier}`,
    },
    {
      step: 'server',
      ok: status.server_version >= 140_000,
      says:
        status.server_version >= 160_000
          ? `PostgreSQL ${version}`
          : `PostgreSQL ${version}: before 16 an early end is not promised as immediate (SET ROLE cannot be refused)`,
    },
    { step: 'definer', ok: true, says: `definer functions of version ${status.version}, epoch ${status.epoch}` },
    {
      step: 'clock',
      ok: Math.abs(offset) <= tolerableSkew * 1000,
      says: `the target's clock is ${Math.abs(offset).toFixed(0)} ms ${offset < 0 ? 'behind' : 'ahead'} (± ${error.toFixed(1)} ms)`,
    },
    ...settings(survey),
    ...rights(survey, template),
    ...(await managedSteps(target, template, signal)),
    ...(await databases(target, template, signal)),
    ...(await checkStandbys(target, signal)),
  ];
  return { steps, serverVersion: status.server_version };
}

function settings(survey: Survey): CheckStep[] {
  return [
    {
      step: 'prepared_transactions',
      ok: survey.max_prepared_transactions === 0,
      says:
        survey.max_prepared_transactions === 0
          ? 'max_prepared_transactions is 0'
          : 'max_prepared_transactions is not 0: an agent could leave a lock on its own role with no session to end',
    },
  ];
}

function rights(survey: Survey, template: string | undefined): CheckStep[] {
  const { broker, public_creates_in: creates } = survey;
  const steps: CheckStep[] = [
    {
      step: 'broker_login',
      ok: !broker.attributes && broker.member_of.length === 0,
      says:
        !broker.attributes && broker.member_of.length === 0
          ? 'the login of the broker has no attributes and is a member of nothing'
          : `the login of the broker has more than it needs: ${[...(broker.attributes ? ['attributes'] : []), ...broker.member_of].join(', ')}`,
    },
    {
      step: 'definer_rights',
      ok: survey.public_functions_in_mayfly === 0,
      says:
        survey.public_functions_in_mayfly === 0
          ? 'only the broker may execute the definer functions'
          : `PUBLIC may execute ${survey.public_functions_in_mayfly} functions in the schema mayfly`,
    },
    {
      step: 'public_create',
      ok: creates.length === 0,
      says:
        creates.length === 0
          ? 'PUBLIC may create in no schema'
          : `PUBLIC may create in: ${creates.join(', ')}. What an agent owns can outlive it (REVOKE CREATE ON SCHEMA … FROM PUBLIC)`,
    },
    {
      step: 'public_temp',
      ok: true,
      ...(survey.public_temp ? { warns: true } : {}),
      says: survey.public_temp
        ? 'PUBLIC may make temporary tables (REVOKE TEMPORARY ON DATABASE … FROM PUBLIC)'
        : 'PUBLIC may make no temporary tables',
    },
  ];
  if (template !== undefined) {
    const seen = survey.templates[template];
    const faults =
      seen === undefined || !seen.exists
        ? ['is not on the allow-list, or does not exist (mayfly target prepare)']
        : [
            ...(seen.attributes === true ? ['has attributes or LOGIN'] : []),
            ...(seen.member_of.length > 0 ? [`is a member of ${seen.member_of.join(', ')}`] : []),
            ...(seen.owns > 0 ? [`owns ${seen.owns} objects`] : []),
            ...(seen.creates_in.length > 0 ? [`may create in ${seen.creates_in.join(', ')}`] : []),
          ];
    steps.push({
      step: 'template',
      ok: faults.length === 0,
      says: `${template} ${faults.length === 0 ? 'has rights by ACL alone' : faults.join('; ')}`,
    });
  }
  return steps;
}
