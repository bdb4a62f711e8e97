import type pg from 'pg';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { prepare, prepareSql } from '../../providers/postgres/index.ts';
import { availableVersions, type PostgresServer, startPostgres } from '../support/postgres-servers.ts';
import { entitlementName, type Ledger, type Live, makeLedger, soon, sqlState } from './postgres-fixture.ts';

/** Every place where a table runs code when somebody else uses it. `billing.bait` notes as whom it ran. */
const traps = `
  CREATE FUNCTION billing.bait(a int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS
    'BEGIN PERFORM public.note(); RETURN a; END';
  CREATE FUNCTION billing.trap() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM public.note(); RETURN NEW; END';
  CREATE TYPE billing.mood AS ENUM ('good', 'bad');
  CREATE DOMAIN billing.small AS int CHECK (billing.bait(VALUE) < 100);
  CREATE COLLATION billing.order FROM "C";
  CREATE TABLE billing.booty (
    id serial PRIMARY KEY, n int DEFAULT billing.bait(7), stored int GENERATED ALWAYS AS (billing.bait(3)) STORED,
    m billing.mood, ms billing.mood[], s billing.small, t text COLLATE billing.order, plain text, num int GENERATED ALWAYS AS IDENTITY,
    CONSTRAINT checked CHECK (billing.bait(n) > 0));
  CREATE INDEX booty_expr ON billing.booty (billing.bait(n));
  CREATE INDEX booty_part ON billing.booty (plain) WHERE billing.bait(n) > 0;
  CREATE INDEX booty_plain ON billing.booty (plain);
  CREATE TRIGGER trapped BEFORE INSERT OR UPDATE ON billing.booty FOR EACH ROW EXECUTE FUNCTION billing.trap();
  CREATE RULE ruled AS ON DELETE TO billing.booty DO ALSO SELECT billing.bait(1);
  ALTER TABLE billing.booty ENABLE ROW LEVEL SECURITY;
  CREATE POLICY policed ON billing.booty USING (billing.bait(n) > 0);
  CREATE STATISTICS billing.stat ON (billing.bait(n)), plain FROM billing.booty;
  CREATE TYPE billing.shape AS (a int, b int);
  CREATE TABLE billing.typed OF billing.shape;
  CREATE TABLE billing.parted (a int, n int) PARTITION BY RANGE ((billing.bait(a)));
  CREATE TABLE billing.parted_1 PARTITION OF billing.parted FOR VALUES FROM (1) TO (9);
  CREATE TABLE billing.plain_parted (a int, n int CHECK (billing.bait(n) > 0), g int GENERATED ALWAYS AS (billing.bait(n)) STORED) PARTITION BY RANGE (a);
  CREATE INDEX ON billing.plain_parted (billing.bait(n));
  CREATE TRIGGER trapped AFTER INSERT ON billing.plain_parted FOR EACH ROW EXECUTE FUNCTION billing.trap();
  CREATE TABLE billing.plain_parted_1 PARTITION OF billing.plain_parted FOR VALUES FROM (1) TO (9);
  CREATE VIEW billing.peek AS SELECT *, billing.bait(n) AS b FROM billing.booty;
  CREATE MATERIALIZED VIEW billing.frozen AS SELECT * FROM billing.booty;
  CREATE FUNCTION billing.door() RETURNS text SECURITY DEFINER LANGUAGE sql AS 'SELECT current_user::text';
  CREATE SEQUENCE billing.counter;
  -- The same without a function of its own, which would take them along when it is dropped.
  CREATE TABLE billing.plain (n int DEFAULT 1, CONSTRAINT plain_check CHECK (n > 0), EXCLUDE USING btree ((n + 1) WITH =));
  CREATE INDEX plain_expr ON billing.plain ((n + 2));
  CREATE INDEX plain_part ON billing.plain (n) WHERE n > 5;
  CREATE TRIGGER plain_trigger BEFORE UPDATE ON billing.plain FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger();
  CREATE RULE plain_rule AS ON INSERT TO billing.plain DO ALSO SELECT 1;
  CREATE POLICY plain_policy ON billing.plain USING (n > 0);
  CREATE TEMP TABLE passing (a int);
  GRANT SELECT, INSERT ON billing.booty TO PUBLIC;
  GRANT SELECT (plain) ON billing.booty TO PUBLIC;
  GRANT USAGE ON SEQUENCE billing.counter TO PUBLIC;
  CREATE SCHEMA lair; CREATE TABLE lair.inner (a int); GRANT USAGE ON SCHEMA lair TO PUBLIC;
  INSERT INTO billing.booty (plain) VALUES ('first'), ('second');
  INSERT INTO billing.parted VALUES (1, 1); INSERT INTO billing.plain_parted VALUES (1, 1);
  SELECT lo_create(0);`;

describe.each(availableVersions())('what an entitlement keeps on PostgreSQL %i', (version) => {
  let server: PostgresServer;
  let ledger: Ledger;
  const quarantine = (): string => `mayfly_q_${ledger.installation.slice(0, 8)}`;
  beforeAll(async () => {
    server = await startPostgres({ version });
    ledger = await makeLedger(server, 'ledger');
    await ledger.admin(`
      CREATE TABLE public.notes (who text, session text);
      CREATE FUNCTION public.note() RETURNS void SECURITY DEFINER LANGUAGE plpgsql AS
        'BEGIN INSERT INTO public.notes VALUES (current_setting(''role''), session_user); END'`);
    await apply('keep');
  });
  afterAll(async () => {
    await ledger?.close();
    await server?.stop();
  });

  async function apply(onOwnedObjects: 'drop' | 'keep'): Promise<void> {
    const entitlements = [{ name: entitlementName, maxTtlSeconds: 900, config: ledger.entitlement, onOwnedObjects }];
    const { password } = ledger;
    await prepare(server.superuserUrl('ledger'), ledger.config, entitlements, ledger.installation, { password });
  }
  async function creator(): Promise<{ live: Live; agent: pg.Client }> {
    const live = await ledger.mint();
    await ledger.admin(`GRANT CREATE, USAGE ON SCHEMA billing TO ${live.ref.handle}`);
    await ledger.admin(`GRANT CREATE ON DATABASE ledger TO ${live.ref.handle}`);
    return { live, agent: await ledger.login(live.minted) };
  }

  test('is tables and sequences, with a role that can do nothing, and not one line of what the agent wrote', async () => {
    const { live, agent } = await creator();
    await agent.query(traps);
    if (version >= 18) {
      await agent.query('ALTER TABLE billing.booty ADD COLUMN virtual int GENERATED ALWAYS AS (n + 1) VIRTUAL');
    }
    await ledger.admin('TRUNCATE public.notes');
    await ledger.session.fence([live.ref], soon());
    expect(await ledger.session.reap([live.ref], soon())).toMatchObject([{ ok: true }]);
    expect(await ledger.session.verify([live.ref], soon())).toMatchObject([{ contained: true, clean: true }]);

    const owned = await ledger.admin(
      `SELECT c.oid::regclass::text AS name, c.relkind AS kind FROM pg_class c WHERE c.relowner = $1::regrole AND c.relkind NOT IN ('i', 'I', 't') ORDER BY 1`,
      [quarantine()],
    );
    expect(owned).toEqual([
      { name: 'billing.booty', kind: 'r' },
      { name: 'billing.booty_id_seq', kind: 'S' },
      { name: 'billing.booty_num_seq', kind: 'S' },
      { name: 'billing.counter', kind: 'S' },
      { name: 'billing.parted_1', kind: 'r' },
      { name: 'billing.plain', kind: 'r' },
      { name: 'billing.plain_parted', kind: 'p' },
      { name: 'billing.plain_parted_1', kind: 'r' },
      { name: 'billing.typed', kind: 'r' },
      { name: 'lair."inner"', kind: 'r' },
    ]);
    // Nothing else of it: no function, type, view, trigger, rule, policy, default, generated column, check, statistics.
    expect(
      await ledger.admin(
        `SELECT pg_describe_object(classid, objid, 0) AS what FROM pg_shdepend WHERE refobjid = $1::regrole AND classid NOT IN ('pg_class'::regclass, 'pg_namespace'::regclass)`,
        [quarantine()],
      ),
    ).toEqual([]);
    const [code] = await ledger.admin(
      `SELECT (SELECT count(*)::int FROM pg_trigger t WHERE NOT tgisinternal AND tgrelid NOT IN (SELECT oid FROM pg_class WHERE relnamespace = 'mayfly'::regnamespace)) AS triggers,
              (SELECT count(*)::int FROM pg_rewrite r WHERE r.ev_class > 16383) AS rules,
              (SELECT count(*)::int FROM pg_policy) AS policies,
              (SELECT count(*)::int FROM pg_attrdef WHERE adrelid > 16383 AND adrelid NOT IN (SELECT oid FROM pg_class WHERE relnamespace = 'mayfly'::regnamespace)) AS expressions,
              (SELECT count(*)::int FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid WHERE k.contype = 'c' AND c.relowner = $1::regrole) AS checks,
              (SELECT count(*)::int FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid WHERE c.relowner = $1::regrole AND (i.indexprs IS NOT NULL OR i.indpred IS NOT NULL)) AS indexes,
              (SELECT count(*)::int FROM pg_statistic_ext) AS statistics,
              (SELECT count(*)::int FROM pg_proc WHERE pronamespace = 'billing'::regnamespace) AS functions`,
      [quarantine()],
    );
    expect(code).toEqual({
      triggers: 0,
      rules: 0,
      policies: 0,
      expressions: 0,
      checks: 0,
      indexes: 0,
      statistics: 0,
      functions: 0,
    });
    // The data is there, and using it as a superuser runs nothing of the agent's; nor did cleaning up.
    expect(
      await ledger.admin(`SELECT id, n, ${version >= 15 ? 'stored' : '3 AS stored'}, plain, num FROM billing.booty`),
    ).toMatchObject([
      { id: 1, n: 7, stored: 3, plain: 'first', num: 1 },
      { id: 2, plain: 'second' },
    ]);
    await ledger.admin(
      `INSERT INTO billing.booty (id, n, plain) VALUES (3, 1, 'x'); UPDATE billing.booty SET n = 4; DELETE FROM billing.booty WHERE id = 3`,
    );
    await ledger.admin(
      'INSERT INTO billing.plain_parted (a, n) VALUES (2, 2); INSERT INTO billing.parted_1 VALUES (5, 5); VACUUM ANALYZE'.replace(
        '; VACUUM ANALYZE',
        '',
      ),
    );
    await ledger.admin('ANALYZE');
    expect(await ledger.admin('SELECT * FROM public.notes')).toEqual([]);
    // Nobody else reaches it by what the agent gave away.
    const { ref, minted } = await ledger.mint();
    const other = await ledger.login(minted);
    expect(await sqlState(other.query('SELECT plain FROM billing.booty'))).toBe('42501');
    expect(await sqlState(other.query(`SELECT nextval('billing.counter')`))).toBe('42501');
    expect(await sqlState(other.query('SELECT * FROM lair.inner'))).toBe('42501');
    await ledger.session.fence([ref], soon());
    const [role] = await ledger.admin(
      `SELECT rolcanlogin OR rolsuper OR rolcreaterole OR rolcreatedb OR rolreplication OR rolbypassrls AS rights,
              EXISTS (SELECT FROM pg_auth_members m WHERE a.oid IN (m.roleid, m.member)) AS member, rolpassword FROM pg_authid a WHERE rolname = $1`,
      [quarantine()],
    );
    expect(role).toEqual({ rights: false, member: false, rolpassword: null });
  });

  test('goes nowhere, and is not dropped, when the quarantine role has members or rights', async () => {
    const { live, agent } = await creator();
    await agent.query('CREATE TABLE billing.precious AS SELECT 1 AS a');
    await ledger.session.fence([live.ref], soon());
    for (const [spoil, repair] of [
      [`CREATE ROLE friend; GRANT ${quarantine()} TO friend`, 'DROP ROLE friend'],
      [`ALTER ROLE ${quarantine()} LOGIN`, `ALTER ROLE ${quarantine()} NOLOGIN`],
    ] as const) {
      await ledger.admin(spoil);
      expect(await ledger.session.reap([live.ref], soon())).toMatchObject([
        {
          ok: false,
          error: {
            message: expect.stringMatching(/the quarantine role mayfly_q_\w+ is missing, has rights or has members/),
          },
        },
      ]);
      await ledger.admin(repair);
    }
    expect(await ledger.admin('SELECT * FROM billing.precious')).toEqual([{ a: 1 }]);
    expect(await ledger.session.reap([live.ref], soon())).toMatchObject([{ ok: true }]);
    expect(await ledger.admin('SELECT * FROM billing.precious')).toEqual([{ a: 1 }]);
  });

  test('is nothing while something of the agent that can run is pinned by a stranger', async () => {
    const { live, agent } = await creator();
    await agent.query(
      `CREATE FUNCTION billing.used() RETURNS int LANGUAGE sql AS 'SELECT 1'; CREATE TABLE billing.later (a int)`,
    );
    await ledger.admin('CREATE TABLE public.app (a int DEFAULT billing.used())');
    await ledger.session.fence([live.ref], soon());
    expect(await ledger.session.reap([live.ref], soon())).toMatchObject([
      {
        ok: false,
        error: { message: expect.stringMatching(/function billing\.used\(\) is needed by .*public\.app|app/) },
      },
    ]);
    expect(await ledger.admin(`SELECT relowner::regrole::text AS owner FROM pg_class WHERE relname = 'later'`)).toEqual(
      [{ owner: live.ref.handle }],
    );
    await ledger.admin('DROP TABLE public.app');
    expect(await ledger.session.reap([live.ref], soon())).toMatchObject([{ ok: true }]);
    expect(await ledger.admin(`SELECT relowner::regrole::text AS owner FROM pg_class WHERE relname = 'later'`)).toEqual(
      [{ owner: quarantine() }],
    );
  });

  test('is known by the template, also after it left the allow-list, and without the facts', async () => {
    const { live, agent } = await creator();
    await agent.query('CREATE TABLE billing.old AS SELECT 1 AS a');
    const { password } = ledger;
    await prepare(server.superuserUrl('ledger'), ledger.config, [], ledger.installation, { password });
    await ledger.session.fence([live.ref], soon());
    expect(await ledger.session.reap([{ ...live.ref, facts: null }], soon())).toMatchObject([{ ok: true }]);
    expect(await ledger.admin('SELECT * FROM billing.old')).toEqual([{ a: 1 }]);
    await apply('keep');
  });

  test('is chosen once per template, and dropping is what happens unless it is', async () => {
    const entitlement = { name: 'a', maxTtlSeconds: 900, config: ledger.entitlement };
    const both = [entitlement, { ...entitlement, name: 'b', onOwnedObjects: 'keep' as const }];
    expect(() => prepareSql(ledger.config, both, ledger.installation)).toThrow(
      /drops owned objects in one entitlement/,
    );
    await apply('drop');
    const { live, agent } = await creator();
    await agent.query('CREATE TABLE billing.dropped (a int)');
    await ledger.session.fence([live.ref], soon());
    expect(await ledger.session.reap([live.ref], soon())).toMatchObject([{ ok: true }]);
    expect(await ledger.admin(`SELECT FROM pg_class WHERE relname = 'dropped'`)).toEqual([]);
    await apply('keep');
  });
});
