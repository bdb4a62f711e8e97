import type { Provider } from '../../src/provider.ts';
import { preparation } from './prepare.ts';
import { entitlementSchema, targetSchema, type VaultEntitlement, type VaultTarget } from './schema.ts';
import { connect } from './session.ts';

export type { VaultEntitlement, VaultTarget };

/** OpenBao, and servers that speak as it does: one token for each grant, revoked by its accessor, with what was read by it. */
export const provider: Provider<VaultTarget, VaultEntitlement> = {
  type: 'vault',
  bindsParams: true,
  targetSchema,
  entitlementSchema,
  connect,
  preparation,
};

/** @alias */
export default provider;
