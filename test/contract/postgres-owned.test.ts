import type pg from 'pg';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { availableVersions, type PostgresServer, startPostgres } from '../support/postgres-servers.ts';
import { type Ledger, type Live, makeLedger, soon } from './postgres-fixture.ts';

/** What an agent leaves behind that it owns, or was given. Here it may create, which no prepared template may. */
describe.each(availableVersions())('what a role owns at its end on PostgreSQL %i', (version) => {
  let server: PostgresServer;
  let ledger: Ledger;
  beforeAll(async () => {
    server = await startPostgres({ version });
    ledger = await makeLedger(server, 'ledger');
  });
  afterAll(async () => {
    await ledger?.close();
    await server?.stop();
  });

  /** A grant whose role may create in `billing`, and schemas. */
  async function creator(): Promise<{ live: Live; agent: pg.Client }> {
    const live = await ledger.mint();
    await ledger.admin(`GRANT CREATE, USAGE ON SCHEMA billing TO ${live.ref.handle}`);
    await ledger.admin(`GRANT CREATE ON DATABASE ledger TO ${live.ref.handle}`);
    return { live, agent: await ledger.login(live.minted) };
  }
  /** Ends it whole. @returns the outcome of reap and the verdict after it. */
  async function end({ ref }: Live, session = ledger.session): Promise<readonly unknown[]> {
    expect(await session.fence([ref], soon())).toMatchObject([{ ok: true }]);
    expect(await session.verify([ref], soon())).toMatchObject([{ ok: true, contained: true, clean: false }]);
    const [reaped] = await session.reap([ref], soon());
    const [verdict] = await session.verify([ref], soon());
    return [reaped, verdict];
  }
  const clean = [{ ok: true }, { contained: true, clean: true }];

  test.each([
    [
      'tables, also partitioned and inherited',
      'CREATE TABLE billing.p (a serial, b int GENERATED ALWAYS AS IDENTITY) PARTITION BY RANGE (a); CREATE TABLE billing.p1 PARTITION OF billing.p FOR VALUES FROM (1) TO (9); CREATE TABLE billing.i () INHERITS (billing.p1)'.replace(
        'billing.i () INHERITS (billing.p1)',
        'billing.i0 (a int); CREATE TABLE billing.i () INHERITS (billing.i0)',
      ),
    ],
    ['sequences', 'CREATE SEQUENCE billing.s'],
    [
      'views that need each other',
      'CREATE VIEW billing.v1 AS SELECT 1 AS a; CREATE VIEW billing.v2 AS SELECT a FROM billing.v1; CREATE OR REPLACE VIEW billing.v1 AS SELECT a FROM billing.v2',
    ],
    [
      'materialized views',
      'CREATE MATERIALIZED VIEW billing.m AS SELECT * FROM billing.invoices; CREATE UNIQUE INDEX ON billing.m (id)',
    ],
    [
      'functions, procedures and aggregates',
      "CREATE FUNCTION billing.f(a int, OUT b int) SECURITY DEFINER LANGUAGE sql AS 'SELECT 1'; CREATE PROCEDURE billing.pr(INOUT a int) LANGUAGE sql AS 'SELECT 1'; CREATE AGGREGATE billing.ag(int) (sfunc = int4pl, stype = int, initcond = '0'); CREATE AGGREGATE billing.ag0(*) (sfunc = int8inc, stype = bigint, initcond = '0')",
    ],
    [
      'types and domains, with a cast that would pin them',
      "CREATE TYPE billing.mood AS ENUM ('a', 'b'); CREATE FUNCTION billing.to_int(billing.mood) RETURNS int LANGUAGE sql AS 'SELECT 1'; CREATE CAST (billing.mood AS int) WITH FUNCTION billing.to_int(billing.mood) AS IMPLICIT; CREATE DOMAIN billing.d AS int CHECK (VALUE > 0); CREATE TYPE billing.c AS (a billing.d, m billing.mood[]); CREATE TYPE billing.r AS RANGE (subtype = int)",
    ],
    ['operators', 'CREATE OPERATOR billing.=== (leftarg = int, rightarg = int, function = int4eq)'],
    [
      'extended statistics',
      'CREATE TABLE billing.st (a int, b int); CREATE STATISTICS billing.stats ON a, b FROM billing.st',
    ],
    [
      'collations, conversions and text search',
      "CREATE COLLATION billing.co FROM \"C\"; CREATE CONVERSION billing.cv FOR 'LATIN1' TO 'UTF8' FROM iso8859_1_to_utf8; CREATE TEXT SEARCH DICTIONARY billing.di (TEMPLATE = simple); CREATE TEXT SEARCH CONFIGURATION billing.tc (COPY = pg_catalog.simple)",
    ],
    [
      'triggers, rules, policies and row security',
      "CREATE TABLE billing.t (a int); CREATE FUNCTION billing.tf() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'; CREATE TRIGGER tt BEFORE INSERT ON billing.t FOR EACH ROW EXECUTE FUNCTION billing.tf(); CREATE RULE ru AS ON DELETE TO billing.t DO INSTEAD NOTHING; ALTER TABLE billing.t ENABLE ROW LEVEL SECURITY; CREATE POLICY po ON billing.t USING (a > 0)",
    ],
    [
      'schemas with what is in them',
      'CREATE SCHEMA lair; CREATE TABLE lair.t (a int); CREATE VIEW lair.v AS SELECT * FROM lair.t',
    ],
    ['default privileges', 'ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO PUBLIC'],
    ['publications', 'CREATE TABLE billing.pt (a int); CREATE PUBLICATION pu FOR TABLE billing.pt'],
    [
      'large objects and comments',
      "SELECT lo_create(0); COMMENT ON LARGE OBJECT 424242 IS 'x'".replace('lo_create(0)', 'lo_create(424242)'),
    ],
    [
      'temporary tables of a session that lives',
      "CREATE TEMP TABLE tmp (a int); CREATE FUNCTION pg_temp.f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    ],
    [
      'advisory locks and open cursors',
      'SELECT pg_advisory_lock(1); BEGIN; DECLARE c CURSOR FOR SELECT * FROM billing.invoices',
    ],
    [
      'odd names',
      'CREATE TABLE billing."t; DROP ROLE ""x""\n" ("a ""b" int); CREATE VIEW billing."$$ v" AS SELECT * FROM billing."t; DROP ROLE ""x""\n"',
    ],
  ])('is dropped with it: %s', async (_what, sql) => {
    const { live, agent } = await creator();
    await agent.query(sql);
    expect(await end(live)).toMatchObject(clean);
    const left = await ledger.admin(
      `SELECT count(*)::int AS n FROM pg_class WHERE relnamespace = 'billing'::regnamespace`,
    );
    expect(left).toEqual([{ n: 2 }]);
  });

  test('rights it was given, also with GRANT OPTION and handed on, policies that name it, and mappings to foreign servers go', async () => {
    const { live, agent } = await creator();
    const other = await ledger.mint();
    const { handle } = live.ref;
    await ledger.admin(`GRANT SELECT ON billing.salaries TO ${handle} WITH GRANT OPTION`);
    await agent.query(`GRANT SELECT ON billing.salaries TO ${other.ref.handle}`);
    await ledger.admin(`CREATE POLICY named ON billing.salaries TO ${handle} USING (true)`);
    await ledger
      .admin(`CREATE EXTENSION IF NOT EXISTS postgres_fdw`)
      .catch(() => ledger.admin('CREATE FOREIGN DATA WRAPPER postgres_fdw'));
    await ledger.admin(
      `CREATE SERVER IF NOT EXISTS far FOREIGN DATA WRAPPER postgres_fdw; GRANT USAGE ON FOREIGN SERVER far TO ${handle}`,
    );
    await agent.query(`CREATE USER MAPPING FOR CURRENT_USER SERVER far`);
    await agent.query('CREATE FOREIGN TABLE billing.far (a int) SERVER far');
    expect(await end(live)).toMatchObject(clean);
    expect(
      await ledger.admin(`SELECT has_table_privilege($1, 'billing.salaries', 'SELECT') AS may`, [other.ref.handle]),
    ).toEqual([{ may: false }]);
    expect(await ledger.admin(`SELECT FROM pg_policies WHERE policyname = 'named'`)).toEqual([]);
    expect(await ledger.admin('SELECT FROM pg_user_mapping')).toEqual([]);
    expect(await end(other)).toMatchObject(clean);
  });

  test('more large objects than the lock table holds are dropped, in bounded transactions', async () => {
    const { live, agent } = await creator();
    // One transaction takes some 64 × 150 locks before it fails.
    await agent.query('SELECT count(lo_create(0)) FROM generate_series(1, 25000)').catch(() => {});
    for (let made = 0; made < 25_000; made += 2500) {
      await agent.query('SELECT count(lo_create(0)) FROM generate_series(1, 2500)');
    }
    expect(
      await ledger.admin(`SELECT count(*) >= 25000 AS many FROM pg_largeobject_metadata WHERE lomowner = $1::regrole`, [
        live.ref.handle,
      ]),
    ).toEqual([{ many: true }]);
    await ledger.session.fence([live.ref], soon());
    const neighbour = await ledger.mint();
    await ledger.session.fence([neighbour.ref], soon());
    await expect
      .poll(async () => (await ledger.session.reap([live.ref, neighbour.ref], soon())).map(({ ok }) => ok), {
        timeout: 60_000,
      })
      .toEqual([true, true]);
    expect(await ledger.session.verify([live.ref], soon())).toMatchObject([{ clean: true }]);
    expect(await ledger.admin('SELECT FROM pg_largeobject_metadata')).toEqual([]);
  });

  test('what something of a stranger needs stays, is told by name, and the rest goes', async () => {
    const { live, agent } = await creator();
    await agent.query(
      'CREATE TABLE billing.wanted (a int); CREATE TABLE billing.unwanted (a int); CREATE TYPE billing.kind AS ENUM ()',
    );
    await ledger.admin('CREATE VIEW billing.report AS SELECT * FROM billing.wanted');
    await ledger.admin('CREATE TABLE billing.theirs (id int, k billing.kind)');
    const [reaped, verdict] = await end(live);
    expect(reaped).toMatchObject({
      ok: false,
      error: {
        errorClass: 'retryable',
        message: expect.stringMatching(/table billing\.wanted is needed by .*billing\.report/),
      },
    });
    expect(reaped).toMatchObject({
      error: { message: expect.stringMatching(/type billing\.kind is needed by table billing\.theirs/) },
    });
    expect(verdict).toMatchObject({ contained: true, clean: false });
    expect(
      await ledger.admin(`SELECT relname FROM pg_class WHERE relname IN ('wanted', 'unwanted', 'report') ORDER BY 1`),
    ).toEqual([{ relname: 'report' }, { relname: 'wanted' }]);
    await ledger.admin('DROP VIEW billing.report; DROP TABLE billing.theirs');
    expect(await ledger.session.reap([live.ref], soon())).toMatchObject([{ ok: true }]);
  });

  test('two ended grants that pin each other are both dropped; one that lives is not touched', async () => {
    const a = await creator();
    const b = await creator();
    await a.agent.query('CREATE VIEW billing.a AS SELECT 1 AS n; GRANT SELECT ON billing.a TO PUBLIC');
    await b.agent.query('CREATE VIEW billing.b AS SELECT n FROM billing.a; GRANT SELECT ON billing.b TO PUBLIC');
    await a.agent.query('CREATE OR REPLACE VIEW billing.a AS SELECT n FROM billing.b');
    expect(await end(a.live)).toMatchObject([{ ok: false }, { contained: true, clean: false }]);
    expect(await ledger.admin(`SELECT FROM pg_class WHERE relname = 'b'`)).toHaveLength(1);
    expect(await end(b.live)).toMatchObject(clean);
    expect(await ledger.session.reap([a.live.ref], soon())).toMatchObject([{ ok: true }]);
  });

  test('a drop that the broker forgot can still be proven: its row outlives it by ten minutes', async () => {
    const { ref } = await ledger.mint();
    await ledger.session.fence([ref], soon());
    await ledger.admin(`UPDATE mayfly.handle SET keep_until = clock_timestamp() - interval '1 h' WHERE handle = $1`, [
      ref.handle,
    ]);
    await ledger.session.reap([ref], soon());
    expect(await ledger.session.verify([{ ...ref, facts: null }], soon())).toMatchObject([
      { contained: true, clean: true },
    ]);
    expect(
      await ledger.admin(
        `SELECT FROM mayfly.handle WHERE handle = $1 AND keep_until > clock_timestamp() + interval '9 min'`,
        [ref.handle],
      ),
    ).toHaveLength(1);
  });
});
