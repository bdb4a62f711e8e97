import type { Provider } from '../../src/provider.ts';
import { paramFaults } from './params.ts';
import { prepareFormats, script } from './prepare.ts';
import { type AwsEntitlement, type AwsTarget, entitlementSchema, targetSchema } from './schema.ts';
import { connect } from './session.ts';

export type { AwsEntitlement, AwsTarget };

/** AWS: sessions of roles by STS, ended early by one inline policy of each role. */
export const provider: Provider<AwsTarget, AwsEntitlement> = {
  type: 'aws-sts',
  bindsParams: true,
  targetSchema,
  entitlementSchema,
  faults: paramFaults,
  connect,
  preparation: { script, formats: prepareFormats },
};

/** @alias */
export default provider;
