import type { Provider } from '../../src/provider.ts';
import { widthFaults } from './derived.ts';
import { paramFaults } from './params.ts';
import { prepareFormats, script } from './prepare.ts';
import { type AwsEntitlement, type AwsTarget, entitlementSchema, targetSchema } from './schema.ts';
import { connect } from './session.ts';
import { targetFaults } from './target-faults.ts';

export type { AwsEntitlement, AwsTarget };

/** AWS: sessions of roles by STS, ended early by one inline policy of each role. */
export const provider: Provider<AwsTarget, AwsEntitlement> = {
  type: 'aws-sts',
  bindsParams: true,
  targetSchema,
  entitlementSchema,
  faults: (entitlement) => [...paramFaults(entitlement), ...widthFaults(entitlement.config)],
  targetFaults,
  connect,
  preparation: { script, formats: prepareFormats },
};

/** @alias */
export default provider;
