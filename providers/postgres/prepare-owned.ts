import { ProviderError } from '../../src/provider.ts';
import { defaultOwner, forgetLogins, leaveOwner, makeOwner, withoutSuperuser } from './prepare-managed.ts';
import { ownerElsewhere } from './prepare-owner.ts';
import { part, type PrepareEntitlement, rightDatabase } from './prepare-sql.ts';
import { block, identifier, literal } from './quote.ts';
import type { PostgresTarget } from './schema.ts';

export const ownedParts: readonly string[] = [
  ...['definer-owners.sql', 'definer-disown.sql', 'definer-reap.sql', 'definer-code.sql', 'definer-relief.sql'],
];
/** What the broker's login may execute in the other databases, and nothing else. */
const disownFunction = 'disown(uuid, text, text, oid, text, boolean, bigint, integer, integer)';

/** Of those parts, what the broker's login may execute in the target's own database. */
export const ownedFunctions: readonly string[] = [
  ...['holdings(uuid, text, oid, text)', 'prepared(uuid, oid)', disownFunction],
  ...['evict(uuid, oid[])', 'inside(text[])', 'relieve(uuid, oid[], boolean)', 'stand()'],
];

/**
 * To give a table to the quarantine role one must be able to act as that role, and it must have rights in the table's schema:
 * only a superuser can do without.
 * @throws ProviderError `misconfigured`
 */
export function assertNothingKept(mode: string, entitlements: readonly PrepareEntitlement[]): void {
  const keeps = entitlements.find(({ onOwnedObjects }) => onOwnedObjects === 'keep');
  if (keeps !== undefined) {
    throw new ProviderError(
      'misconfigured',
      `${keeps.name}: on_owned_objects: keep needs the mode definer; this target has the mode ${mode}, where what a role owns can only be dropped`,
    );
  }
}

/** The role that kept tables and sequences go to; mayfly.quarantine_name in SQL. */
function quarantineRole(installation: string): string {
  return `mayfly_q_${installation.toLowerCase().replaceAll('-', '').slice(0, 8)}`;
}

/**
 * Which templates keep what their roles own, and the role it goes to: no login, no rights, no members.
 * @throws ProviderError `misconfigured` when two entitlements say different things of one template.
 */
export function keeping(installation: string, entitlements: readonly PrepareEntitlement[]): string {
  const choices = new Map<string, boolean>();
  for (const { name, config, onOwnedObjects } of entitlements) {
    const keep = onOwnedObjects === 'keep';
    if ((choices.get(config.template) ?? keep) !== keep) {
      throw new ProviderError(
        'misconfigured',
        `${name}: the template ${config.template} drops owned objects in one entitlement and keeps them in another`,
      );
    }
    choices.set(config.template, keep);
  }
  const names = (wanted: boolean): string[] =>
    [...choices].filter(([, keep]) => keep === wanted).map(([template]) => literal(template));
  const lines = [
    `DELETE FROM mayfly.keeping WHERE template = ANY (ARRAY[${names(false).join(', ')}]::text[]);`,
    ...names(true).map((template) => `INSERT INTO mayfly.keeping VALUES (${template}) ON CONFLICT DO NOTHING;`),
  ];
  const role = quarantineRole(installation);
  if (names(true).length > 0) {
    lines.push(
      block(`BEGIN
  IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = ${literal(role)}) THEN
    CREATE ROLE ${identifier(role)} NOLOGIN;
  END IF;
  IF EXISTS (SELECT FROM pg_auth_members WHERE ${literal(identifier(role))}::regrole IN (roleid, member)) THEN
    RAISE EXCEPTION 'the quarantine role % must be a member of nothing and have no members', ${literal(role)};
  END IF;
  ALTER ROLE ${identifier(role)} NOLOGIN PASSWORD NULL NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS;
  COMMENT ON ROLE ${identifier(role)} IS 'Mayfly: owns what ended roles left and was to be kept; give it nothing';
END`),
    );
  }
  return lines.join('\n');
}

/** What makes one of the other databases ready, for whoever prepares the target, connected to it, after the target's own. */
export function elsewhereSql(config: PostgresTarget, database: string, installation: string, adopt = false): string {
  const login = identifier(config.user);
  const functions = ['definer-elsewhere.sql', 'definer-owners.sql', 'definer-disown.sql'].map(part);
  const rights = [
    ownerElsewhere(installation, adopt),
    block(`DECLARE
  r record;
BEGIN
  ${forgetLogins}
END`),
    `GRANT USAGE ON SCHEMA mayfly TO ${login};`,
    `GRANT EXECUTE ON FUNCTION mayfly.${disownFunction} TO ${login};`,
  ];
  const role = config.owner ?? defaultOwner;
  const body =
    config.mode === 'definer'
      ? [...functions, ...rights]
      : [
          "SET LOCAL mayfly.managed = 'on';",
          makeOwner(role),
          `SET LOCAL ROLE ${identifier(role)};`,
          part('definer-authid.sql'),
          ...functions.map(withoutSuperuser),
          ...rights,
          'RESET ROLE;',
          leaveOwner(identifier(role)),
        ];
  return [
    `-- Mayfly: removes what ended roles leave in the database ${JSON.stringify(database)}. As for the target, connected to it.`,
    "BEGIN;\nSET LOCAL search_path = pg_catalog, pg_temp;\nSET LOCAL lock_timeout = '10s';",
    rightDatabase(database, config.user),
    ...body,
    `GRANT CONNECT ON DATABASE ${identifier(database)} TO ${login};`,
    'COMMIT;\n',
  ].join('\n\n');
}

/** All of the other databases, for psql: the rest of what `mayfly target prepare` prints. Empty when none is listed. */
export function elsewhereScript(config: PostgresTarget, installation: string): string {
  return config.databases
    .map((database) => `\n\\connect ${identifier(database)}\n\n${elsewhereSql(config, database, installation)}`)
    .join('');
}
