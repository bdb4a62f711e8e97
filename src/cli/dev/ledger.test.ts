import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { Secret } from '../../domain/secret.ts';
import { discardEmbeddedPostgres, type EmbeddedPostgres, startEmbeddedPostgres } from './embedded-postgres.ts';
import { prepareLedger } from './ledger.ts';
import { withClient } from './sql.ts';

let dir: string;
let server: EmbeddedPostgres;

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'mayfly-ledger-'));
  server = await startEmbeddedPostgres({ dir, port: 0 });
  await prepareLedger(server.url('postgres'));
});
afterAll(async () => {
  await server.stop();
  await discardEmbeddedPostgres(dir);
  await rm(dir, { recursive: true, force: true });
});

async function rows(sql: string, url = server.url('ledger')): Promise<Record<string, unknown>[]> {
  return withClient(url, async (client) => (await client.query(sql)).rows);
}

/** One digest over every row of the three tables. */
async function digest(): Promise<unknown> {
  const parts = ['customers', 'invoices', 'payments'].map(
    (table) => `SELECT '${table}' AS name, md5(string_agg(t::text, E'\\n' ORDER BY id)) AS digest FROM ${table} t`,
  );
  return rows(parts.join(' UNION ALL '));
}

test('the ledger holds about 10,000 rows of customers, invoices and payments, found without a schema name', async () => {
  const [counts] = await rows(`SELECT (SELECT count(*)::int FROM customers) AS customers,
    (SELECT count(*)::int FROM invoices) AS invoices, (SELECT count(*)::int FROM payments) AS payments`);
  expect(counts).toMatchObject({ customers: 600, invoices: 5500 });
  expect(counts?.['payments']).toBeGreaterThan(3800);
  expect(counts?.['payments']).toBeLessThan(4500);
});

test('its books are in order: what is paid is paid exactly, and nothing else is', async () => {
  const odd = await rows(`
    SELECT i.id, i.status, i.total_amount, p.paid FROM invoices i
    LEFT JOIN (SELECT invoice_id, sum(amount) AS paid, min(received_at) AS first FROM payments GROUP BY 1) p ON p.invoice_id = i.id
    JOIN customers c ON c.id = i.customer_id
    WHERE i.currency <> c.currency OR p.first < i.issued_on OR CASE i.status
      WHEN 'paid' THEN p.paid IS DISTINCT FROM i.total_amount
      WHEN 'partially_paid' THEN NOT coalesce(p.paid > 0 AND p.paid < i.total_amount, false)
      WHEN 'overdue' THEN p.paid IS NOT NULL OR i.due_on >= date '2026-10-31'
      ELSE p.paid IS NOT NULL END`);
  expect(odd).toEqual([]);
  const statuses = await rows('SELECT DISTINCT status FROM invoices ORDER BY 1');
  expect(statuses.map(({ status }) => status)).toEqual([
    ...['draft', 'open', 'overdue', 'paid', 'partially_paid', 'void'],
  ]);
});

test('every table has a primary key and an owner without a login', async () => {
  const tables = await rows(`
    SELECT c.relname AS name, pg_get_userbyid(c.relowner) AS owner,
      (SELECT count(*)::int FROM pg_constraint k WHERE k.conrelid = c.oid AND k.contype = 'p') AS keys
    FROM pg_class c WHERE c.relnamespace = 'billing'::regnamespace AND c.relkind = 'r' ORDER BY 1`);
  expect(tables).toEqual(
    ['customers', 'invoices', 'payments'].map((name) => ({ name, owner: 'ledger_owner', keys: 1 })),
  );
  expect(await rows(`SELECT rolcanlogin, rolsuper FROM pg_roles WHERE rolname = 'ledger_owner'`)).toEqual([
    { rolcanlogin: false, rolsuper: false },
  ]);
});

test('a plain login may come in and find billing, but reads nothing and leaves nothing', async () => {
  await rows(`CREATE ROLE visitor LOGIN PASSWORD 'guess'`);
  const url = server.url('ledger', 'visitor', new Secret('guess'));
  expect(await rows('SHOW search_path', url)).toEqual([{ search_path: 'billing, public' }]);
  const refused = { code: '42501' };
  await expect(rows('SELECT count(*) FROM billing.invoices', url)).rejects.toMatchObject(refused);
  await expect(rows('CREATE TABLE public.mine ()', url)).rejects.toMatchObject(refused);
  await expect(rows('CREATE TABLE billing.mine ()', url)).rejects.toMatchObject(refused);
  await expect(rows('CREATE SCHEMA mine', url)).rejects.toMatchObject(refused);
  await expect(rows('CREATE TEMP TABLE mine ()', url)).rejects.toMatchObject(refused);
});

test('a whole ledger is kept, with what people did in it', async () => {
  await rows(`UPDATE invoices SET status = 'void' WHERE id = 1`);
  const before = await digest();
  expect(await prepareLedger(server.url('postgres'))).toEqual({ created: false });
  expect(await digest()).toEqual(before);
});

test('a half-made ledger is made anew, row for row the same as any other', async () => {
  await rows('DROP SCHEMA billing CASCADE');
  expect(await prepareLedger(server.url('postgres'))).toEqual({ created: true });
  const first = await digest();
  // As a start left it that died between CREATE DATABASE and the rest; and one that has tables but not the mark.
  await rows('DROP DATABASE ledger WITH (FORCE)', server.url('postgres'));
  await rows('CREATE DATABASE ledger', server.url('postgres'));
  await rows('CREATE SCHEMA billing; CREATE TABLE billing.customers (id int)');
  expect(await prepareLedger(server.url('postgres'))).toEqual({ created: true });
  expect(await digest()).toEqual(first);
  expect(await rows('SHOW search_path')).toEqual([{ search_path: 'billing, public' }]);
});

test('a ledger that fails half way leaves nothing of itself', async () => {
  await rows('DROP DATABASE ledger WITH (FORCE)', server.url('postgres'));
  await prepareLedger(server.url('postgres'));
  await rows(`COMMENT ON SCHEMA billing IS NULL`);
  const before = await digest();
  const blocked = withClient(server.url('ledger'), async (client) => {
    await client.query('BEGIN; LOCK TABLE payments IN ACCESS SHARE MODE');
    const impatient = new URL(server.url('postgres'));
    impatient.searchParams.set('options', '-c lock_timeout=200ms');
    return prepareLedger(impatient.href);
  });
  await expect(blocked).rejects.toMatchObject({ code: '55P03' });
  expect(await digest()).toEqual(before);
});
