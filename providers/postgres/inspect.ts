import { z } from 'zod';
import { type Drift, type Granted, type Inspection, ProviderError } from '../../src/provider.ts';
import { roleDrift, roleSchema, templateDrift, templateSchema } from './drift.ts';
import { oidOf, strayed } from './handle.ts';
import { readDeclared } from './rights.ts';
import type { PostgresEntitlement } from './schema.ts';
import type { Target } from './target.ts';

const inspectedSchema = z.object({
  refs: z.array(
    z.object({
      registered: z.boolean(),
      ended: z.boolean(),
      template: z.string().nullable(),
      role: roleSchema.nullable(),
    }),
  ),
  templates: z.record(z.string(), templateSchema),
});

/** Compares what each role can do now with what was granted: itself, and the template that gives it its rights. */
export async function inspect(
  target: Target,
  grants: readonly Granted<PostgresEntitlement>[],
  signal: AbortSignal,
): Promise<readonly Inspection[]> {
  if (grants.length === 0) {
    return [];
  }
  // Not among those for revoking: a look may be slow where a database has very many relations.
  return target.issuing.useTwice(signal, async ({ connection, status }) => {
    const [row] = await connection.query(
      'inspecting',
      'SELECT mayfly.inspect($1, $2::text[], $3::oid[]) AS inspected',
      [target.context.installation, grants.map(({ handle }) => handle), grants.map(({ facts }) => oidOf(facts))],
      signal,
    );
    const { refs, templates } = inspectedSchema.parse(row?.['inspected']);
    const configs = [...new Set(grants.map(({ config }) => config))];
    const { installation } = target.context;
    const declared = await readDeclared(configs, installation, target.config.database, connection, signal);
    // Grants share entitlements and templates: what is true of a template is said once and told of each.
    const shared = new Map<PostgresEntitlement, Map<string, readonly Drift[]>>();
    const ofTemplate = (config: PostgresEntitlement, template: string): readonly Drift[] => {
      const known = shared.get(config) ?? new Map<string, readonly Drift[]>();
      shared.set(config, known);
      const rights = declared[configs.indexOf(config)];
      const drift = known.get(template) ?? (rights ? templateDrift(template, templates[template], rights) : []);
      known.set(template, drift);
      return drift;
    };
    return grants.map((grant, index): Inspection => {
      const error = strayed(grant, status);
      const seen = refs[index];
      if (error !== null || seen === undefined) {
        return { ok: false, error: error ?? new ProviderError('retryable', 'inspecting: no answer') };
      }
      if (seen.ended) {
        return { ok: true, drift: [{ what: 'ended', says: 'the target has it as ended' }] };
      }
      if (seen.role === null) {
        return {
          ok: true,
          drift: [{ what: 'absent', says: 'no role of it is in the target, though none was dropped here' }],
        };
      }
      // What was granted is what was minted. The catalog may name another template by now: that changed nothing of the credential.
      const template = seen.template ?? grant.config.template;
      const drift = roleDrift(grant.handle, template, seen.registered, seen.role);
      return { ok: true, drift: [...drift, ...moved(template, grant.config), ...ofTemplate(grant.config, template)] };
    });
  });
}

function moved(template: string, config: PostgresEntitlement): readonly Drift[] {
  if (template === config.template) return [];
  return [
    {
      what: 'template',
      says: `the role was minted from the template ${template}, not ${config.template} as now declared`,
    },
  ];
}
