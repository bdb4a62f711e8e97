import { findGoServer } from '../support/go-server.ts';
import { openbaoSources, type VaultFlavour } from '../support/openbao.ts';
import { vaultCoreSources } from '../support/vault-core.ts';
import { openbaoFolder } from './vault-fixture.ts';

/** The servers that the provider is run on. Each is missing aloud where it is not there; in CI that is a failure. */
export const flavours: readonly VaultFlavour[] = [
  { name: `OpenBao ${openbaoSources.version}`, folder: openbaoFolder, binary: 'bao' },
  { name: `Vault ${vaultCoreSources.version}`, folder: await findGoServer(vaultCoreSources), binary: 'vault-core' },
];
