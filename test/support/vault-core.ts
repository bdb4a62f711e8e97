import type { GoServer } from './go-server.ts';

/**
 * The core of HashiCorp Vault 1.13.0 (MPL-2.0) with a small `main` of ours: what a later version says may differ. By a name that no
 * Vault in PATH has.
 */
export const vaultCoreSources: GoServer = { name: 'vault', version: '1.13.0', binaries: ['vault-core'] };
