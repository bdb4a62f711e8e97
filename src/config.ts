import { readFileSync } from 'node:fs';
import { isIP } from 'node:net';
import { z } from 'zod';
import { parseCidr } from './domain/cidr.ts';
import { Secret } from './domain/secret.ts';
import { approvalSettings, driftSettings, limitSettings, wholeNumber } from './config/limits.ts';

/** Thrown at start with every fault of the environment at once, by name. */
export class ConfigError extends Error {
  readonly faults: readonly string[];

  constructor(faults: readonly string[]) {
    super(`Settings are not valid:\n${faults.map((fault) => `  ${fault}`).join('\n')}`);
    this.name = 'ConfigError';
    this.faults = faults;
  }
}

const origin = z.string().refine((text) => {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  return (
    url !== undefined &&
    /^https?:$/.test(url.protocol) &&
    url.username === '' &&
    url.password === '' &&
    // Cookies and `Origin` know no path: what else lives on that host would have the sessions of our operators.
    url.pathname === '/' &&
    url.search === '' &&
    url.hash === '' &&
    !text.endsWith('/')
  );
}, 'must be an http(s) URL without user, path, query, fragment or trailing slash');

const databaseUrl = z
  .string()
  .regex(/^postgres(ql)?:\/\/[^/?#]+\/[^/?#]+/, 'must be postgres://user:password@host:port/database')
  .transform((url) => new Secret(url));

const cidr = z
  .string()
  .refine((text) => parseCidr(text) !== undefined, 'must be addresses or CIDR blocks, separated by commas');

/**
 * Every setting: `MAYFLY_` and the key in upper snake case. A setting marked secret may come from a file instead, named by
 * the same variable with `_FILE`. The README's table is made from this schema.
 */
const settings = z.strictObject({
  host: z
    .string()
    .min(1)
    .default('127.0.0.1')
    .describe('Address to listen on. Anything but loopback needs TLS or trusted proxies.'),
  port: wholeNumber(0, 65535).default(7420).describe('Port to listen on; 0 takes a free one.'),
  public_url: origin
    .optional()
    .describe(
      'Our own name: the only `aud` that is accepted, and the only Host header. Default: the listener’s address, on loopback only.',
    ),
  tls_cert_file: z.string().min(1).optional().describe('PEM certificate chain of the listener.'),
  tls_key_file: z.string().min(1).optional().describe('PEM private key of the listener.'),
  tls_client_certificates: z
    .enum(['off', 'optional'], 'must be off or optional')
    .default('off')
    .describe(
      '`optional`: the listener asks for client certificates, so that X.509-SVIDs and tokens bound to them count.',
    ),
  trusted_proxies: z
    .string()
    .transform((text) => text.split(',').map((part) => part.trim()))
    .pipe(z.array(cidr).min(1))
    .optional()
    .describe('Addresses or CIDR blocks of the proxies that terminate TLS. Callers from elsewhere are refused.'),
  dpop_nonce: z
    .enum(['off', 'required'], 'must be off or required')
    .default('off')
    .describe('`required`: each DPoP proof must carry a nonce that the broker gave in the last minutes (RFC 9449 §9).'),
  database_url: databaseUrl.optional().describe('The store, as the runtime login.').meta({ secret: true }),
  owner_database_url: databaseUrl
    .optional()
    .describe('The store, as the owner of its schema. Only `mayfly migrate` reads it.')
    .meta({ secret: true }),
  sequencer_database_url: databaseUrl
    .optional()
    .describe('The store, as the sequencer of the evidence.')
    .meta({ secret: true }),
  database_connections: wholeNumber(4, 500).default(20).describe('Connections to the store, at most.'),
  redis_url: z
    .string()
    .regex(/^rediss?:\/\//, 'must be redis://… or rediss://…')
    .transform((url) => new Secret(url))
    .optional()
    .describe('Redis for the alarms of revocation. Default: the store itself.')
    .meta({ secret: true }),
  webhook_url: z
    .string()
    .refine(isWebhookUrl, 'must be an https URL without user or fragment, or http on loopback')
    .optional()
    .describe(
      'Told, signed, of what is overdue, contained late, written off, paused or resumed, killed or lifted, and of breakers.',
    ),
  webhook_secret: z
    .string()
    // 24 to 64 bytes: https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
    .regex(/^whsec_[A-Za-z0-9+/]{32,86}={0,2}$/, 'must be whsec_ and 24 to 64 random bytes in base64')
    .transform((secret) => new Secret(secret))
    .optional()
    .describe('Signs the webhooks (Standard Webhooks).')
    .meta({ secret: true }),
  secrets_dir: z
    .string()
    .min(1)
    .default('/var/run/mayfly/targets')
    .describe('Folder of the targets’ secrets, one folder a target.'),
  providers: z
    .string()
    .transform((text) => text.split(',').map((part) => part.trim()))
    .pipe(z.array(z.string().regex(/^[a-z][a-z0-9-]{0,40}$/, 'must be provider types, separated by commas')))
    .default(['postgres'])
    .describe('Provider types that may be loaded.'),
  sweep_seconds: wholeNumber(1, 60).default(1).describe('How often the sweeper looks for what is due and unclaimed.'),
  overdue_seconds: wholeNumber(1, 3600)
    .default(30)
    .describe('A revocation not contained this long after it was due is overdue.'),
  reconcile_seconds: wholeNumber(1, 86400)
    .default(300)
    .describe('How often each target is compared with the store, give or take a tenth.'),
  orphan_grace_seconds: wholeNumber(2, 3600)
    .default(60)
    .describe('How long a credential that is unknown here is left alone: it may just be on its way.'),
  mint_seconds: wholeNumber(1, 60).default(10).describe('How long a target may take to make a credential.'),
  shutdown_seconds: wholeNumber(1, 300)
    .default(20)
    .describe('How long requests and revocations in hand may take to finish at shutdown.'),
  session_seconds: wholeNumber(60, 86400)
    .default(3600)
    .describe('How long an operator who signed in with a browser stays so.'),
  ...limitSettings,
  ...driftSettings,
  ...approvalSettings,
  log_level: z
    .enum(['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent'])
    .default('info')
    .describe('Least level that is logged.'),
});

export type Settings = z.output<typeof settings>;

/** `public_url` is settled, and the rules that join settings hold. */
export type Config = Omit<Settings, 'public_url'> & { readonly public_url: string };

/** Read by the commands that talk to a broker, not by the broker. Known here so that they are not called unknown. */
const clientSettings = ['MAYFLY_URL', 'MAYFLY_TOKEN_FILE', 'MAYFLY_KEY_FILE', 'MAYFLY_DIR'];
/** Of targets and webhooks: the catalog refers to them. */
const CATALOG_SECRET = /^MAYFLY_(TARGET|WEBHOOKS)_[A-Z0-9_]+$/;

export interface SettingRow {
  readonly variable: string;
  readonly secret: boolean;
  readonly fallback: string;
  readonly says: string;
}

/** The settings as rows for `mayfly config` and the README's table. */
export function settingRows(): SettingRow[] {
  return Object.entries(settings.shape).map(([key, schema]) => {
    const parsed = schema.safeParse(undefined);
    const fallback = parsed.success && parsed.data !== undefined ? String(parsed.data) : '';
    return { variable: variableOf(key), secret: isSecret(key), fallback, says: schema.description ?? '' };
  });
}

/**
 * Reads `MAYFLY_*`. Unknown names, bad values and missing ones are thrown together.
 * @throws ConfigError
 */
export function readConfig(env: Readonly<Record<string, string | undefined>>): Config {
  const faults: string[] = [];
  const given: Record<string, string> = {};
  const keys = new Map(Object.keys(settings.shape).map((key) => [variableOf(key), key]));
  for (const [name, value] of Object.entries(env)) {
    if (!name.startsWith('MAYFLY_') || value === undefined) continue;
    if (clientSettings.includes(name) || CATALOG_SECRET.test(name)) continue;
    const key = keys.get(name) ?? keys.get(name.replace(/_FILE$/, ''));
    if (key === undefined || (!keys.has(name) && !isSecret(key))) {
      faults.push(`${name}: no such setting`);
    } else if (key in given) {
      faults.push(`${name}: given twice, as a value and as a file`);
    } else if (keys.has(name)) {
      given[key] = value;
    } else {
      try {
        given[key] = readFileSync(value, 'utf8').trim();
      } catch (cause) {
        faults.push(
          `${name}: can not be read (${cause instanceof Error && 'code' in cause ? String(cause.code) : 'unknown'})`,
        );
        given[key] = '';
      }
    }
  }
  const parsed = settings.safeParse(given);
  if (!parsed.success) {
    const said = parsed.error.issues.map((issue) => `${variableOf(String(issue.path[0]))}: ${issue.message}`);
    // Each part of a list that does not fit says the same of the one variable.
    throw new ConfigError([...faults, ...new Set(said)]);
  }
  faults.push(...faultsTogether(parsed.data));
  if (faults.length > 0) throw new ConfigError(faults);
  return { ...parsed.data, public_url: parsed.data.public_url ?? listenerUrl(parsed.data) };
}

/** What is wrong about settings that are well each by itself. */
function faultsTogether(config: Settings): string[] {
  const faults: string[] = [];
  const loopback = isLoopback(config.host);
  const tls = hasTls(config);
  if ((config.tls_cert_file === undefined) !== (config.tls_key_file === undefined)) {
    faults.push('MAYFLY_TLS_CERT_FILE and MAYFLY_TLS_KEY_FILE: give both or neither');
  }
  if (config.tls_client_certificates === 'optional' && !tls)
    faults.push(
      'MAYFLY_TLS_CLIENT_CERTIFICATES: needs MAYFLY_TLS_CERT_FILE: what a proxy says of certificates counts for nothing',
    );
  if ((config.webhook_url === undefined) !== (config.webhook_secret === undefined))
    faults.push('MAYFLY_WEBHOOK_URL and MAYFLY_WEBHOOK_SECRET: give both or neither');
  if (!loopback && !tls && config.trusted_proxies === undefined) {
    faults.push(
      `MAYFLY_HOST: ${config.host} is not loopback, so set MAYFLY_TLS_CERT_FILE and MAYFLY_TLS_KEY_FILE, or name the proxies that terminate TLS in MAYFLY_TRUSTED_PROXIES`,
    );
  }
  if (!loopback && config.public_url === undefined) {
    faults.push(
      'MAYFLY_PUBLIC_URL: needed when the listener is not loopback; it is the audience that every token must name',
    );
  }
  if (config.public_url?.startsWith('http:') && !isLoopback(new URL(config.public_url).hostname)) {
    faults.push('MAYFLY_PUBLIC_URL: must be https unless it is loopback');
  }
  if (config.trusted_proxies?.some((block) => block.endsWith('/0'))) {
    faults.push('MAYFLY_TRUSTED_PROXIES: a block of all addresses trusts everybody');
  }
  if (config.overdue_seconds <= config.sweep_seconds)
    faults.push('MAYFLY_OVERDUE_SECONDS: must be longer than MAYFLY_SWEEP_SECONDS');
  if (config.orphan_grace_seconds <= config.mint_seconds)
    faults.push('MAYFLY_ORPHAN_GRACE_SECONDS: must be longer than MAYFLY_MINT_SECONDS');
  if (config.port === 0 && config.public_url === undefined)
    faults.push('MAYFLY_PUBLIC_URL: needed when MAYFLY_PORT is 0');
  return faults;
}

/** The settings in force as text values, secrets hidden. */
export function printableConfig(config: Config): Record<string, string> {
  return Object.fromEntries(
    Object.keys(settings.shape).map((key) => {
      const value: unknown = Object.entries(config).find(([name]) => name === key)?.[1];
      return [variableOf(key), printable(value)];
    }),
  );
}

/** A secret prints as `[secret]`. */
function printable(value: unknown): string {
  if (value instanceof Secret) return value.toString();
  if (Array.isArray(value)) return value.join(',');
  return typeof value === 'string' ? value : typeof value === 'number' ? String(value) : '';
}

export function isLoopback(host: string): boolean {
  const name = host.replace(/^\[|\]$/g, '');
  return name === 'localhost' || name === '::1' || (isIP(name) === 4 && name.startsWith('127.'));
}

function isWebhookUrl(text: string): boolean {
  if (!URL.canParse(text)) return false;
  const url = new URL(text);
  const safe = url.protocol === 'https:' || (url.protocol === 'http:' && isLoopback(url.hostname));
  return safe && url.username === '' && url.password === '' && url.hash === '';
}

function hasTls({ tls_cert_file: certFile, tls_key_file: keyFile }: Settings): boolean {
  return certFile !== undefined && keyFile !== undefined;
}

/** Where the listener is reached, on this machine. */
function listenerUrl(config: Settings): string {
  const host = isIP(config.host) === 6 ? `[${config.host}]` : config.host;
  return `${hasTls(config) ? 'https' : 'http'}://${host}:${config.port}`;
}

function variableOf(key: string): string {
  return `MAYFLY_${key.toUpperCase()}`;
}

function isSecret(key: string): boolean {
  const schema = Object.entries(settings.shape).find(([name]) => name === key)?.[1];
  return schema?.meta()?.['secret'] === true;
}
