import { z } from 'zod';
import type { CheckStep } from '../../src/provider.ts';
import { says } from './probe.ts';
import { type Declared, readDeclared, rightSchema, sayRight, some } from './rights.ts';
import type { PostgresEntitlement } from './schema.ts';
import type { Target } from './target.ts';

const widthSchema = z.object({
  relations: z.array(rightSchema),
  functions: z.array(
    z.object({
      oid: z.int(),
      schema: z.string(),
      name: z.string(),
      /** It runs as its owner. */
      definer: z.boolean(),
      as_superuser: z.boolean(),
      /** It says itself where it looks for names. */
      pinned: z.boolean(),
      trusted: z.boolean(),
    }),
  ),
  opened: z.array(z.string()),
  temp: z.boolean().nullable(),
  lo_compat: z.boolean(),
  lo_public: z.int(),
  lo_create: z.array(z.string()),
  languages: z.array(z.string()),
  wrappers: z.array(z.string()),
  servers: z.array(z.object({ name: z.string(), mapped: z.boolean() })),
  dblink: z.boolean(),
  jobs: z.array(z.string()),
  /** Another database, where pg_cron may be and agents may connect. */
  jobs_in: z.string().nullable(),
  defaults: z.array(z.object({ template: z.boolean(), says: z.string() })),
});
type Width = z.infer<typeof widthSchema>;

/**
 * What an agent can reach in the target's database that its entitlement does not name, since everybody can. A step that
 * fails breaks what is guaranteed; one that warns makes the entitlement wider than it says.
 */
export async function width(
  target: Target,
  config: PostgresEntitlement,
  signal: AbortSignal,
): Promise<readonly CheckStep[]> {
  try {
    return await survey(target, config, signal);
  } catch (error) {
    return [{ step: 'width', ok: false, says: says(error) }];
  }
}

async function survey(target: Target, config: PostgresEntitlement, signal: AbortSignal): Promise<readonly CheckStep[]> {
  return target.issuing.useTwice(signal, async ({ connection }) => {
    const { installation } = target.context;
    const [row] = await connection.query(
      'surveying',
      'SELECT mayfly.width($1, $2) AS width',
      [installation, config.template],
      signal,
    );
    const seen = widthSchema.parse(row?.['width']);
    const [declared] = await readDeclared([config], installation, target.config.database, connection, signal);
    return declared === undefined ? [] : judge(seen, declared);
  });
}

function judge(seen: Width, declared: Declared): readonly CheckStep[] {
  return [
    ...relations(seen, declared),
    ...functions(seen, declared),
    step('system_rights', 'fails', seen.opened.length > 0, {
      good: 'PUBLIC has no more of the system than when the cluster was made',
      bad: `PUBLIC was given rights on what is the system's own: ${some(seen.opened)}`,
    }),
    ...largeObjects(seen),
    ...elsewhere(seen),
    ...later(seen),
  ];
}

/** Good, or else it fails or warns. */
function step(
  name: string,
  otherwise: 'fails' | 'warns',
  found: boolean,
  text: { readonly good: string; readonly bad: string },
): CheckStep {
  if (!found) return { step: name, ok: true, says: text.good };
  return otherwise === 'fails'
    ? { step: name, ok: false, says: text.bad }
    : { step: name, ok: true, warns: true, says: text.bad };
}

function relations(seen: Width, declared: Declared): readonly CheckStep[] {
  const more = seen.relations.filter((right) => !declared.has(right)).map(sayRight);
  return [
    step('public_relations', 'fails', more.length > 0, {
      good: 'PUBLIC has no right on a table, view or sequence that is not declared',
      bad: `PUBLIC has ${more.length} rights that are not declared: ${some(more)} (REVOKE … FROM PUBLIC)`,
    }),
  ];
}

function functions({ functions: all, temp, languages }: Width, declared: Declared): readonly CheckStep[] {
  const open = all.filter(
    ({ oid, schema, name }) =>
      !declared.has({ kind: 'function', schema, name, column: null, oid, right: 'EXECUTE', grantable: false }),
  );
  const named = (those: typeof all): string => `${those.length}: ${some(those.map(({ name }) => name))}`;
  // Its owner can be taken over by whoever can put a table in front of those it means.
  const captured = all.filter((each) => each.as_superuser && each.trusted && !each.pinned && temp === true);
  const definers = open.filter((each) => each.definer && !captured.includes(each));
  const untrusted = open.filter((each) => !each.definer && !each.trusted);
  const plain = open.filter((each) => !each.definer && each.trusted);
  return [
    step('public_functions', 'warns', plain.length > 0, {
      good: 'PUBLIC may call no function that is not declared',
      bad: `PUBLIC may call functions that are not declared, ${named(plain)} (REVOKE EXECUTE … FROM PUBLIC)`,
    }),
    step('public_definer_functions', 'warns', definers.length > 0, {
      good: 'PUBLIC may call no function that runs as its owner',
      bad: `PUBLIC may call functions that run as their owners, with rights that are not declared, ${named(definers)}`,
    }),
    step('superuser_functions', 'fails', captured.length > 0, {
      good: 'no function that PUBLIC may call lets itself be led astray as a superuser',
      bad:
        'PUBLIC may call functions that run as a superuser and look for names where the caller says; with a temporary ' +
        `table an agent can become that superuser, ${named(captured)} (ALTER FUNCTION … SET search_path)`,
    }),
    step('untrusted_languages', 'warns', languages.length > 0 || untrusted.length > 0, {
      good: 'no untrusted language is installed, and PUBLIC may call no function in one',
      bad: [
        ...(languages.length > 0 ? [`untrusted languages are installed: ${some(languages)}`] : []),
        ...(untrusted.length > 0 ? [`PUBLIC may call functions in such a language or in C, ${named(untrusted)}`] : []),
      ].join('; '),
    }),
  ];
}

function largeObjects(seen: Width): readonly CheckStep[] {
  return [
    step('lo_compat_privileges', 'fails', seen.lo_compat, {
      good: 'lo_compat_privileges is off',
      bad: 'lo_compat_privileges is on: every login reads, writes and removes every large object',
    }),
    step('public_large_objects', 'warns', seen.lo_public > 0 || seen.lo_create.length > 0, {
      good: 'PUBLIC may use no large object, and make none',
      bad: [
        ...(seen.lo_public > 0 ? [`PUBLIC may use ${seen.lo_public} large objects`] : []),
        ...(seen.lo_create.length > 0
          ? [`PUBLIC may make large objects (REVOKE EXECUTE ON FUNCTION ${seen.lo_create.join(', ')} FROM PUBLIC)`]
          : []),
      ].join('; '),
    }),
  ];
}

function elsewhere({ servers, wrappers, dblink, jobs, jobs_in: database }: Width): readonly CheckStep[] {
  const mapped = servers.filter((server) => server.mapped).map(({ name }) => name);
  const bare = servers.filter((server) => !server.mapped).map(({ name }) => name);
  return [
    step('foreign_logins', 'fails', mapped.length > 0, {
      good: 'no foreign server takes everybody as one user',
      bad: `an agent can act as somebody else on a foreign server, where no end reaches it: ${some(mapped)} (user mapping for PUBLIC)`,
    }),
    step('foreign_servers', 'warns', bare.length > 0 || wrappers.length > 0, {
      good: 'the template may use no foreign server and no wrapper for one',
      bad: `the template may use foreign servers or wrappers: ${some([...bare, ...wrappers])}`,
    }),
    step('dblink', 'warns', dblink, {
      good: 'no dblink for agents',
      bad: 'agents may call dblink: they reach out of the database, from its own address (REVOKE EXECUTE … FROM PUBLIC)',
    }),
    step('cron_jobs', 'fails', jobs.length > 0, {
      good: 'agents may schedule no jobs by pg_cron here',
      bad: `agents may schedule jobs, which stay when the role goes: ${some(jobs)} (REVOKE USAGE ON SCHEMA cron FROM PUBLIC)`,
    }),
    step('cron_database', 'warns', database !== null, {
      good: 'agents may not connect to another database with pg_cron',
      bad: `agents may connect to the database ${database} of pg_cron: what they may schedule there is not seen from here (REVOKE CONNECT ON DATABASE … FROM PUBLIC)`,
    }),
  ];
}

function later({ defaults }: Width): readonly CheckStep[] {
  const own = defaults.filter(({ template }) => template).map((one) => one.says);
  const everybody = defaults.filter(({ template }) => !template).map((one) => one.says);
  return [
    step('template_default_privileges', 'fails', own.length > 0, {
      good: 'no default privileges for the template',
      bad: `the template will get rights that are not declared: ${some(own)} (ALTER DEFAULT PRIVILEGES … REVOKE)`,
    }),
    step('public_default_privileges', 'warns', everybody.length > 0, {
      good: 'no default privileges for PUBLIC',
      bad: `PUBLIC will get rights on what is made later: ${some(everybody)} (ALTER DEFAULT PRIVILEGES … REVOKE)`,
    }),
  ];
}
