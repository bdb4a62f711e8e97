import { readFileSync } from 'node:fs';
import { type ConnectionOptions, checkServerIdentity } from 'node:tls';
import { ProviderError } from '../../src/provider.ts';
import type { PostgresTarget } from './schema.ts';

/**
 * The CA of a target, read anew each time, or undefined for the system's own. From a file only its certificates are
 * taken: they go to agents, and a path in the catalog must not become a way to read other files.
 * @throws ProviderError `misconfigured`
 */
export function certificateAuthority(target: PostgresTarget): string | undefined {
  if (target.ca_file === undefined) {
    return target.ca_pem;
  }
  let text: string;
  try {
    text = readFileSync(target.ca_file, 'utf8');
  } catch {
    throw new ProviderError('misconfigured', 'the ca_file of the target cannot be read');
  }
  const certificates = text.match(/-----BEGIN CERTIFICATE-----[A-Za-z0-9+/=\s]+-----END CERTIFICATE-----/g);
  if (certificates === null) {
    throw new ProviderError('misconfigured', 'the ca_file of the target holds no certificate');
  }
  return `${certificates.join('\n')}\n`;
}

/** What `sslmode` means to libpq, said to Node. */
export function tlsOptions(target: PostgresTarget, host: string): false | ConnectionOptions {
  if (target.sslmode === 'disable') {
    return false;
  }
  const ca = certificateAuthority(target);
  return {
    ...(ca === undefined ? {} : { ca }),
    minVersion: 'TLSv1.2',
    rejectUnauthorized: target.sslmode !== 'require',
    checkServerIdentity: (_host, certificate) =>
      target.sslmode === 'verify-full' ? checkServerIdentity(host, certificate) : undefined,
  };
}
