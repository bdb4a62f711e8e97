import { randomUUID } from 'node:crypto';
import type { Ledger } from '../../contract/postgres-fixture.ts';

/** What `seedLive` makes per transaction: a comment on a role holds a lock until the transaction ends. */
const batch = 1000;

/**
 * Brings the live roles of a target in definer or createrole mode to `count`, with the effects of the definer's `mint` but without a password,
 * whose check is most of a mint's price: 50,000 in less than a minute. They live for a day.
 */
export async function seedLive(ledger: Ledger, count: number): Promise<void> {
  // In createrole mode all that was made belongs to one role that is a member of each, as it becomes by CREATE ROLE since 16.
  const { mode, owner } = ledger.config;
  const join =
    mode === 'createrole'
      ? `EXECUTE format('GRANT %I TO %I WITH ADMIN TRUE, INHERIT FALSE, SET FALSE', v_handle, '${owner}');`
      : '';
  const [{ live } = { live: 0 }] = await ledger.admin(
    'SELECT count(*)::int AS live FROM mayfly.handle WHERE role_oid IS NOT NULL AND fenced_at IS NULL',
  );
  for (let made = Number(live); made < count; made += batch) {
    const ids = Array.from({ length: Math.min(batch, count - made) }, () => randomUUID());
    await ledger.admin(`DO $seed$
DECLARE
  v_grant uuid;
  v_handle text;
BEGIN
  FOREACH v_grant IN ARRAY '{${ids.join(',')}}'::uuid[] LOOP
    v_handle := 'mfy_' || replace(v_grant::text, '-', '');
    EXECUTE format('CREATE ROLE %I LOGIN CONNECTION LIMIT 4 VALID UNTIL %L', v_handle, now() + interval '1 day');
    EXECUTE format('COMMENT ON ROLE %I IS %L', v_handle, mayfly.mark('${ledger.installation}', v_grant));
    EXECUTE format('GRANT %I TO %I', '${ledger.entitlement.template}', v_handle)
      || CASE WHEN current_setting('server_version_num')::integer >= 160000
         THEN ' WITH ADMIN FALSE, INHERIT TRUE, SET FALSE' ELSE '' END;
    ${join}
    INSERT INTO mayfly.handle (handle, grant_id, installation, template, role_oid, minted_at, valid_until, not_after, keep_until)
    VALUES (v_handle, v_grant, '${ledger.installation}', '${ledger.entitlement.template}', v_handle::regrole, now(),
            now() + interval '1 day', now() + interval '1 day', now() + interval '1 day');
  END LOOP;
END $seed$`);
  }
  // The definer's own count has not seen them.
  await ledger.admin(
    `SELECT setval(c.oid, 1000000) FROM pg_class c WHERE c.relnamespace = 'mayfly'::regnamespace AND c.relkind = 'S'`,
  );
  await ledger.admin('ANALYZE pg_authid, pg_auth_members, pg_shdescription, mayfly.handle');
}
