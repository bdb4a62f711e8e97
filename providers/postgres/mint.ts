import { type Minted, type MintRequest, ProviderError, type Ref, type Renewed, Secret } from '../../src/provider.ts';
import { handleOf } from './handle.ts';
import { boundParams } from './prepare-bound.ts';
import type { PostgresEntitlement, PostgresTarget } from './schema.ts';
import { randomPassword, scramVerifier } from './scram.ts';
import type { Target } from './target.ts';
import { certificateAuthority } from './tls.ts';

interface MintRow {
  readonly role_oid: number;
  readonly expires_at: Date;
  /** Mode `pool`: which role is lent, and for the how many-th time. Elsewhere the role is named like the handle. */
  readonly role_name?: string;
  readonly generation?: string;
}

const mintSql = {
  definer: 'SELECT role_oid, expires_at FROM mayfly.mint($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)',
  createrole: 'SELECT role_oid, expires_at FROM mayfly.mint($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)',
  pool: 'SELECT role_oid, expires_at, role_name, generation FROM mayfly.mint_pooled($1, $2, $3, $4, $5, $6, $7, $8, $9)',
} as const;

/**
 * Makes the role, in one statement that is one transaction. The definer function refuses it after `mintBy`, after a
 * fence, for a template that is not allowed, for too long a life, and over the template's cap.
 * @throws ProviderError `gone` when the end came first.
 */
export async function mint(
  target: Target,
  ref: Ref,
  request: MintRequest<PostgresEntitlement>,
  signal: AbortSignal,
): Promise<Minted> {
  if (ref.handle !== handleOf(ref.grantId)) {
    throw new ProviderError('misconfigured', 'the handle is not that of the grant');
  }
  // To ignore a param would be to grant more than was decided.
  const bound = boundParams(request.config);
  const unbound = Object.keys(request.params).filter((param) => !bound.includes(param));
  const missing = bound.filter((param) => !Object.hasOwn(request.params, param));
  if (unbound.length > 0 || missing.length > 0) {
    throw new ProviderError(
      'misconfigured',
      unbound.length > 0
        ? `nothing here binds the params ${unbound.join(', ')}`
        : `without ${missing.join(', ')} no row is bound`,
    );
  }
  const { template, connection_limit: connectionLimit } = request.config;
  const password = randomPassword();
  const verifier = await scramVerifier(password, target.config.scram_iterations);
  const minted = await target.issuing.use(signal, async ({ connection, status }) => {
    const until = target.clock.toTarget(request.deadline);
    const [row] = await connection.query<MintRow & Record<string, unknown>>(
      'minting',
      mintSql[target.config.mode],
      [
        ...[target.context.installation, ref.handle, ref.grantId, template, verifier],
        ...[until, target.clock.toTarget(request.notAfter), target.clock.toTarget(request.mintBy)],
        request.oneConnection === true ? 1 : connectionLimit,
        // A role of a pool takes none: `prepare` refuses entitlements that declare some.
        ...(target.config.mode === 'pool' ? [] : [JSON.stringify(request.params)]),
      ],
      signal,
    );
    if (row === undefined) {
      throw new ProviderError('retryable', 'minting: no answer');
    }
    return { row, systemIdentifier: status.system_identifier };
  });
  target.refreshInBackground();
  const { role_name: lent, generation } = minted.row;
  return {
    secret: new Secret(credential(target.config, lent ?? ref.handle, password)),
    expiresAt: target.clock.fromTarget(minted.row.expires_at),
    facts: {
      oid: minted.row.role_oid,
      system_identifier: minted.systemIdentifier,
      template,
      database: target.config.database,
      ...(lent === undefined ? {} : { role_name: lent, generation: Number(generation) }),
    },
  };
}

/** Moves VALID UNTIL of a role that is alive. @throws ProviderError `gone` when it is not. */
export async function renew(target: Target, ref: Ref, until: Date, signal: AbortSignal): Promise<Renewed> {
  const renewed = await target.issuing.use(signal, async ({ connection, status }) => {
    const [row] = await connection.query<MintRow & Record<string, unknown>>(
      'renewing',
      'SELECT role_oid, expires_at FROM mayfly.renew($1, $2, $3)',
      [target.context.installation, ref.handle, target.clock.toTarget(until)],
      signal,
    );
    if (row === undefined) {
      throw new ProviderError('retryable', 'renewing: no answer');
    }
    return { row, systemIdentifier: status.system_identifier };
  });
  target.refreshInBackground();
  return {
    expiresAt: target.clock.fromTarget(renewed.row.expires_at),
    facts: { ...ref.facts, oid: renewed.row.role_oid, system_identifier: renewed.systemIdentifier },
  };
}

function credential(config: PostgresTarget, username: string, password: string): Readonly<Record<string, unknown>> {
  const { host, port } = config.agent_endpoint ?? config;
  const { database, sslmode } = config;
  const ca = certificateAuthority(config);
  const authority = `${username}:${password}@${host.includes(':') ? `[${host}]` : host}:${port}`;
  const url = `postgres://${authority}/${encodeURIComponent(database)}?sslmode=${sslmode}`;
  return { host, port, database, username, password, sslmode, url, ...(ca === undefined ? {} : { ca_pem: ca }) };
}
