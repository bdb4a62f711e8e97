import { describe, expect, test } from 'vitest';
import { entitlementSchema, targetSchema } from './schema.ts';

const target = {
  host: 'db.example',
  database: 'ledger',
  user: 'mayfly',
  password: 'env:MAYFLY_TARGET_LEDGER_PASSWORD',
};

describe('a target', () => {
  test('is verified in full unless it says otherwise', () => {
    expect(targetSchema.parse(target)).toEqual({
      ...target,
      mode: 'definer',
      port: 5432,
      sslmode: 'verify-full',
      scram_iterations: 4096,
      max_connections: 12,
      databases: [],
    });
  });

  test.each([
    ['a password in clear', { password: 'hunter2' }],
    ['an unknown member', { colour: 'blue' }],
    ['an unknown mode', { mode: 'magic' }],
    ['its own database among the others', { databases: ['ledger'] }],
    ['prefer, which can be talked down', { sslmode: 'prefer' }],
    ['no TLS over a network', { sslmode: 'disable' }],
    [
      'no TLS for agents elsewhere',
      { host: 'localhost', sslmode: 'disable', agent_endpoint: { host: 'db.example', port: 5432 } },
    ],
    ['a host that hides parameters', { host: 'db.example/x?sslmode=disable' }],
    ['a host that hides a password', { host: 'a:b@db.example' }],
    ['port 0', { port: 0 }],
    ['a CA told twice', { ca_file: '/ca.pem', ca_pem: '-----BEGIN CERTIFICATE-----' }],
    ['a CA that is none', { ca_pem: 'trust me' }],
    ['no room for revoking', { max_connections: 4 }],
    ['a standby that is the primary', { standbys: [{ host: 'db.example' }] }],
    ['a standby told twice', { standbys: [{ host: 'db2.example' }, { host: 'db2.example', port: 5432 }] }],
    [
      'two standbys of one name',
      {
        standbys: [
          { name: 'a', host: 'db2.example' },
          { name: 'a', host: 'db3.example' },
        ],
      },
    ],
    ['a standby with a login of its own', { standbys: [{ host: 'db2.example', user: 'other' }] }],
    ['a standby name with a line break', { standbys: [{ name: 'a\nb', host: 'db2.example' }] }],
    ['a standby elsewhere without TLS', { host: 'localhost', sslmode: 'disable', standbys: [{ host: 'db2.example' }] }],
    ['a database name with NUL', { database: 'a\0b' }],
  ])('is refused with %s', (_what, changes) => {
    expect(targetSchema.safeParse({ ...target, ...changes }).success).toBe(false);
  });

  test.each(['localhost', '127.0.0.1', '127.9.9.9', '::1'])('may do without TLS on %s', (host) => {
    expect(targetSchema.safeParse({ ...target, host, sslmode: 'disable' }).success).toBe(true);
  });
});

describe('an entitlement', () => {
  const read = { schema: 'billing', tables: ['invoices'], grant: ['SELECT'] };

  test('has bounds unless it says otherwise', () => {
    expect(entitlementSchema.parse({ template: 'mayfly_t_read', privileges: [read] })).toMatchObject({
      connection_limit: 4,
      max_live: 500,
    });
  });

  test.each([
    ['tables', { tables: ['a'], grant: ['SELECT', 'INSERT', 'UPDATE', 'DELETE'] }],
    ['columns', { columns: { a: ['b'] }, grant: ['SELECT', 'INSERT', 'UPDATE'] }],
    ['sequences', { sequences: ['a'], grant: ['USAGE', 'SELECT', 'UPDATE'] }],
    [
      'functions',
      { functions: ['f()', 'g(integer)', 'h(timestamp with time zone, text[], app.kind)'], grant: ['EXECUTE'] },
    ],
  ])('may name rights on %s', (_kind, item) => {
    const parsed = entitlementSchema.safeParse({ template: 'mayfly_t_x', privileges: [{ schema: 's', ...item }] });
    expect(parsed.success).toBe(true);
  });

  test.each([
    ['nothing', {}],
    ['two kinds at once', { tables: ['a'], sequences: ['b'], grant: ['SELECT'] }],
    ['no right', { tables: ['a'], grant: [] }],
    ['TRUNCATE', { tables: ['a'], grant: ['TRUNCATE'] }],
    ['TRIGGER, which runs as others', { tables: ['a'], grant: ['TRIGGER'] }],
    ['a right of another kind', { tables: ['a'], grant: ['EXECUTE'] }],
    ['ALL', { tables: ['a'], grant: ['ALL'] }],
    ['CREATE', { tables: ['a'], grant: ['CREATE'] }],
    ['our own schema', { schema: 'mayfly', tables: ['handle'], grant: ['SELECT'] }],
    ['the catalogs', { schema: 'pg_catalog', tables: ['pg_authid'], grant: ['SELECT'] }],
    ['SQL for a function', { functions: ['f(); DROP TABLE x; --'], grant: ['EXECUTE'] }],
    ['SQL for an argument', { functions: ['f(int) TO PUBLIC; --)'], grant: ['EXECUTE'] }],
    ['a name over 63 bytes', { tables: ['ä'.repeat(32)], grant: ['SELECT'] }],
  ])('may not name %s', (_what, item) => {
    const privileges = [{ schema: 's', ...item }];
    expect(entitlementSchema.safeParse({ template: 'mayfly_t_x', privileges }).success).toBe(false);
  });

  test.each(['postgres', 'pg_read_all_data', 'mayfly_t_', 'mayfly_t_A', 'mayfly_t_a"', `mayfly_t_${'a'.repeat(51)}`])(
    'may not have %s for a template',
    (template) => {
      expect(entitlementSchema.safeParse({ template, privileges: [read] }).success).toBe(false);
    },
  );
});
