import type { Queryable } from './database.ts';

/** @throws Error when the login could rewrite the evidence: a superuser, or a member of the schema's owner. */
export async function checkRuntimeLogin(db: Queryable): Promise<void> {
  const rows = await db.query<{ login: string; mighty: boolean }>({
    text: `SELECT current_user AS login, r.rolsuper OR pg_has_role(current_user, n.nspowner, 'MEMBER')
        OR has_table_privilege('mayfly.audit_events', 'UPDATE') OR has_table_privilege('mayfly.audit_events', 'DELETE') AS mighty
      FROM pg_roles r, pg_namespace n WHERE r.rolname = current_user AND n.nspname = 'mayfly'`,
    values: [],
  });
  if (rows[0]?.mighty !== false) {
    throw new Error(
      `The runtime login ${rows[0]?.login ?? ''} owns the schema or is a superuser: it could rewrite the evidence. Use a login of its own (MAYFLY_DATABASE_URL).`,
    );
  }
}
