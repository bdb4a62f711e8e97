import { isIPv4 } from 'node:net';
import { z } from 'zod';
import { bindPath, pathSchema, placeholdersOf } from './path.ts';
import { brokerName } from './policy.ts';

const reference = z.string().regex(/^(env:[A-Z][A-Z0-9_]*|file:\/?[^\0]+)$/, 'must be env:NAME or file:path');
/** A mount, without slashes at its ends. */
const mount = z
  .string()
  .regex(/^[A-Za-z0-9_-]+(\/[A-Za-z0-9_-]+){0,7}$/, 'must be a mount path, without a slash at its ends');
const name = z.string().regex(/^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$/, 'must be a name of letters, digits, _, . and -');

/** The address of this very machine: the only one where a connection without TLS is allowed. */
export function isLoopback(host: string): boolean {
  return host === 'localhost' || host === '[::1]' || (isIPv4(host) && host.startsWith('127.'));
}

const address = z
  .url({ protocol: /^https?$/ })
  .refine((text) => URL.canParse(text) && isBare(new URL(text)), 'must be https://host:port and no more')
  .refine(
    (text) => !URL.canParse(text) || new URL(text).protocol === 'https:' || isLoopback(new URL(text).hostname),
    'http: is only for a host on the loopback interface',
  )
  .transform((text) => new URL(text).origin);

function isBare(url: URL): boolean {
  return url.pathname === '/' && url.search === '' && url.hash === '' && url.username === '' && url.password === '';
}

/** How the broker proves who it is. Each login is given a token of its own, so replicas share none. */
const auth = z.union([
  z.strictObject({
    approle: z.strictObject({
      role_id: z.string().min(1).max(200),
      secret_id: reference,
      mount: mount.default('approle'),
    }),
  }),
  z.strictObject({
    /** The projected service account token, mounted below the target's secrets folder. */
    kubernetes: z.strictObject({ role: name, token: reference, mount: mount.default('kubernetes') }),
  }),
  z.strictObject({ jwt: z.strictObject({ role: name, jwt: reference, mount: mount.default('jwt') }) }),
]);

/** A target's `connection`. */
export const targetSchema = z.strictObject({
  /** The nodes of one cluster. The first that is active is asked; the others when it can not be reached. */
  addresses: z
    .array(address)
    .min(1)
    .max(8)
    .refine((all) => new Set(all).size === all.length, 'each must be given once'),
  namespace: z
    .string()
    .regex(/^[A-Za-z0-9_-]+(\/[A-Za-z0-9_-]+){0,7}$/, 'must be a namespace path, without a slash at its ends')
    .optional(),
  /** Reference to the certificates (PEM) that the servers are trusted by, instead of those of the system. */
  ca: reference.optional(),
  auth,
  /** The role by which the grants' tokens are made. It bounds their policies, so the broker itself needs none of those. */
  token_role: name.default('mayfly'),
  /**
   * A KV version 2 mount for two things: who holds the target, and which grants were ended before it was known what was made of
   * them. `none`: a grant that a crash left half made is then never proven gone; a person writes it off.
   */
  record: z.union([z.literal('none'), z.strictObject({ mount })]).default({ mount: 'mayfly' }),
  /** Where agents reach it, when that is not where the broker does. */
  agent_address: address.optional(),
  /** Seconds for one call. */
  request_timeout_seconds: z.int().min(1).max(60).default(10),
  /** Seconds that Vault works on one request at most: `max_request_duration` of its listener. */
  max_request_seconds: z.int().min(1).max(3600).default(90),
  /** Milliseconds for opening a connection: then the next address is tried. */
  connect_timeout_ms: z.int().min(100).max(10_000).default(2000),
});

export type VaultTarget = z.infer<typeof targetSchema>;

const policies = z
  .array(
    z
      .string()
      .regex(/^[a-z0-9][a-z0-9_./-]{0,127}$/, 'must be the name of a policy')
      .refine((policy) => !['root', 'default', brokerName].includes(policy), 'is not for agents'),
  )
  .min(1)
  .max(20)
  .refine((all) => new Set(all).size === all.length, 'each must be given once');

const wrapSeconds = z.int().min(5).max(600).optional();

/** Values with which the canary reads, for a path that params enter. */
const probeParams = z.record(z.string(), z.string().max(128)).optional();

const scalar = z.union([z.string().max(4096), z.number(), z.boolean()]);

function binds(path: string, params: Readonly<Record<string, string>>): boolean {
  try {
    bindPath(path, params);
    return true;
  } catch {
    return false;
  }
}

/** An entitlement's `provider` section. */
export const entitlementSchema = z
  .discriminatedUnion('mode', [
    /** The agent talks to Vault itself. */
    z.strictObject({
      mode: z.literal('token'),
      policies,
      /** Under which its leases stand, if its policies let it make some: their ends are then seen to as well. */
      lease_paths: z
        .array(pathSchema.refine((path) => placeholdersOf(path).length === 0, 'takes no params'))
        .max(8)
        .default([]),
      wrap_seconds: wrapSeconds,
      /** What its policies let it read, for the canary: Vault answers this token there, and after its end no more. */
      probe_path: pathSchema.refine((path) => placeholdersOf(path).length === 0, 'takes no params').optional(),
    }),
    /** The broker reads a secret that is made for this grant. */
    z.strictObject({
      mode: z.literal('dynamic'),
      policies,
      path: pathSchema,
      method: z.enum(['GET', 'POST']).default('GET'),
      /** What is sent with POST. `${ttl_seconds}` is the life of the grant. */
      data: z.record(z.string().regex(/^[a-z][a-z0-9_]{0,62}$/), scalar).default({}),
      probe_params: probeParams,
      wrap_seconds: wrapSeconds,
    }),
    /** The broker reads a secret that was there before and stays: what was read can not be taken back. */
    z.strictObject({
      mode: z.literal('kv'),
      policies,
      mount,
      path: pathSchema,
      version: z.union([z.literal(1), z.literal(2)]).default(2),
      probe_params: probeParams,
      wrap_seconds: wrapSeconds,
    }),
  ])
  .superRefine((entitlement, context) => {
    if (entitlement.mode === 'token') return;
    const { probe_params: probes } = entitlement;
    if (probes !== undefined && !binds(entitlement.path, probes))
      context.addIssue({
        code: 'custom',
        path: ['probe_params'],
        message: 'must have each param of the path, and fit it',
      });
    if (entitlement.mode !== 'dynamic') return;
    if (entitlement.method === 'GET' && Object.keys(entitlement.data).length > 0)
      context.addIssue({ code: 'custom', path: ['data'], message: 'is sent with POST only' });
  });

export type VaultEntitlement = z.infer<typeof entitlementSchema>;
