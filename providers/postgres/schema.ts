import { isIPv4 } from 'node:net';
import { z } from 'zod';

const reference = z.string().regex(/^(env:[A-Z][A-Z0-9_]*|file:\/?[^\0]+)$/, 'must be env:NAME or file:path');
const port = z.int().min(1).max(65_535);
const host = z.string().regex(/^[A-Za-z0-9._:-]{1,253}$/, 'must be a host name or an IP address');
/** The name of a thing that PostgreSQL would take uncut. */
const name = z
  .string()
  .min(1)
  .refine((text) => !text.includes('\0') && Buffer.byteLength(text) <= 63, 'must be 1 to 63 bytes without NUL');

const endpoint = z.strictObject({ host, port });

/** Database, login, TLS and secret are those of the primary. `name` is the `application_name` that it streams with. */
const standby = z.strictObject({
  name: z
    .string()
    .regex(
      /^[!-~]([ -~]{0,61}[!-~])?$/,
      'must be the application_name of the standby: 1 to 63 printable ASCII characters',
    )
    .optional(),
  host,
  port: port.default(5432),
});

/** The address of this very machine: the only one where a connection without TLS is allowed. */
function isLoopback(address: string): boolean {
  return address === 'localhost' || address === '::1' || (isIPv4(address) && address.startsWith('127.'));
}

/** A target's `connection`. */
export const targetSchema = z
  .strictObject({
    /** `createrole` and `pool` are for managed services, where nobody is superuser. */
    mode: z.enum(['definer', 'createrole', 'pool']).default('definer'),
    host,
    port: port.default(5432),
    database: name,
    /** The broker's login: no attributes, EXECUTE on the definer functions and nothing else. */
    user: name,
    password: reference,
    sslmode: z.enum(['disable', 'require', 'verify-ca', 'verify-full']).default('verify-full'),
    ca_file: z.string().min(1).optional(),
    ca_pem: z.string().includes('-----BEGIN CERTIFICATE-----').optional(),
    /** Where agents reach the target, when that is not where the broker does. */
    agent_endpoint: endpoint.optional(),
    /** 4096 suits every client (pgjdbc refuses less); a random password needs none of them. */
    scram_iterations: z.int().min(1).max(99_999).default(4096),
    /** The broker's own connections: three of them are for revoking alone, one for cleaning up. */
    max_connections: z.int().min(5).max(100).default(12),
    /** `createrole`, `pool`: the role that owns the functions and all that is minted (default `mayfly_owner`). */
    owner: name.optional(),
    /** `createrole`: minted roles that the target bears at once (default 500): what each costs grows with them. */
    max_roles: z.int().min(1).max(10_000).optional(),
    /** Its hot standbys, each of them: they serve sessions that nothing on the primary ends. */
    standbys: z.array(standby).max(16).optional(),
    /** The other databases of the cluster, where roles may own things: they are cleaned there too. */
    databases: z.array(name).default([]),
  })
  .refine((target) => !target.databases.includes(target.database), {
    path: ['databases'],
    message: 'are the other databases: the target’s own is cleaned anyway',
  })
  .refine((target) => target.ca_file === undefined || target.ca_pem === undefined, {
    path: ['ca_file'],
    message: 'ca_file and ca_pem are two ways to say one thing: give one',
  })
  .refine(
    (target) =>
      target.sslmode !== 'disable' ||
      [
        target.host,
        target.agent_endpoint?.host ?? target.host,
        ...(target.standbys ?? []).map((each) => each.host),
      ].every(isLoopback),
    { path: ['sslmode'], message: 'disable is only for a host on the loopback interface' },
  )
  .refine(
    ({ host: primary, port: at, standbys = [] }) => {
      const places = [`${primary}:${at}`, ...standbys.map((each) => `${each.host}:${each.port}`)];
      const names = standbys.flatMap((each) => each.name ?? []);
      return new Set(places).size === places.length && new Set(names).size === names.length;
    },
    { path: ['standbys'], message: 'each must have an address and a name of its own, other than those of the primary' },
  );

export type PostgresTarget = z.infer<typeof targetSchema>;
export type ListedStandby = z.infer<typeof standby>;

const privilegeKinds = {
  tables: ['SELECT', 'INSERT', 'UPDATE', 'DELETE'],
  columns: ['SELECT', 'INSERT', 'UPDATE'],
  sequences: ['USAGE', 'SELECT', 'UPDATE'],
  functions: ['EXECUTE'],
} as const;
type PrivilegeKind = keyof typeof privilegeKinds;
const kinds = Object.keys(privilegeKinds) as PrivilegeKind[];

/** `refund(uuid, numeric)`: lower case, types by their plain names. */
const functionSignature = z
  .string()
  .regex(
    /^[a-z_][a-z0-9_]*\((|[a-z_][a-z0-9_.]*( [a-z]+)*(\[\])?(, ?[a-z_][a-z0-9_.]*( [a-z]+)*(\[\])?)*)\)$/,
    'must be a name and its argument types, e.g. refund(uuid, numeric)',
  );

const privilege = z
  .strictObject({
    schema: name.refine((text) => text !== 'mayfly' && !/^(pg_|information_schema$)/.test(text), 'is not for agents'),
    tables: z.array(name).min(1).optional(),
    /** Table → columns. */
    columns: z.record(name, z.array(name).min(1)).optional(),
    sequences: z.array(name).min(1).optional(),
    functions: z.array(functionSignature).min(1).optional(),
    grant: z.array(z.enum(['SELECT', 'INSERT', 'UPDATE', 'DELETE', 'USAGE', 'EXECUTE'])).min(1),
  })
  .superRefine((item, context) => {
    const [kind, ...others] = kinds.filter((each) => item[each] !== undefined);
    if (kind === undefined || others.length > 0) {
      context.addIssue({ code: 'custom', message: `needs exactly one of ${kinds.join(', ')}` });
      return;
    }
    const allowed: readonly string[] = privilegeKinds[kind];
    for (const [index, granted] of item.grant.entries()) {
      if (!allowed.includes(granted)) {
        context.addIssue({ code: 'custom', path: ['grant', index], message: `${granted} is not for ${kind}` });
      }
    }
  });

/** As the catalog's own param names. */
const paramName = z.string().regex(/^[a-z][a-z0-9_]{0,62}$/, 'must be a lower-case param name');

/** Only rows whose column equals the param. Several for one table must all hold. */
const rowSecurity = z.strictObject({
  schema: name,
  table: name,
  column: name,
  param: paramName,
  /** Switch row security on although others have rights on the table: a policy then leaves them what they see. */
  enable: z.boolean().default(false),
});

/** An entitlement's `provider` section. */
export const entitlementSchema = z.strictObject({
  /** The NOLOGIN role that holds the rights; minted roles are members of it. */
  template: z.string().regex(/^mayfly_t_[a-z0-9_]{1,50}$/, 'must be mayfly_t_ and a name of a-z, 0-9 and _'),
  privileges: z.array(privilege).min(1),
  /** Connections that one credential may hold at once. */
  connection_limit: z.int().min(1).max(100).default(4),
  /** Roles of this template that may live at once, enforced by the target. */
  max_live: z.int().min(1).max(100_000).default(500),
  /** Mode `pool`: roles made for the template (default 20): grants that live at once, and those that rest. */
  pool_size: z.int().min(1).max(500).optional(),
  /** How params bound the rows of the tables. */
  row_security: z.array(rowSecurity).max(200).default([]),
  /** Params that policies and functions of your own read with `mayfly.param(name)`. */
  params: z.array(paramName).max(50).default([]),
  /** `statements`: the server logs every statement of these roles. Literals are then in its log. */
  record: z.enum(['nothing', 'statements']).default('nothing'),
});

export type PostgresEntitlement = z.infer<typeof entitlementSchema>;
export type Privilege = PostgresEntitlement['privileges'][number];
