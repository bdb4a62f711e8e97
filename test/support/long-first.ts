import { BaseSequencer, type TestSpecification } from 'vitest/node';

/** Files that take minutes, most of which they wait: begun last, the others would be done long before. */
const long = [
  ...['contract/provider-aws-sts', 'contract/provider-vault', 'integration/aws-sts', 'contract/postgres-cron'],
  ...['integration/reconcile-faults', 'contract/postgres-standby-lost', 'integration/store-outage'],
  ...['integration/revocation-faults', 'contract/vault-broker', 'integration/aws-run', 'integration/webhook-lanes'],
].map((name) => `/test/${name}.test.ts`);

/** The long ones first, and then as vitest has it: the largest, or those that took longest the last time. */
export class LongFirst extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const sorted = await super.sort(files);
    const isLong = ({ moduleId }: TestSpecification) => long.some((name) => moduleId.endsWith(name));
    return [...sorted.filter(isLong), ...sorted.filter((file) => !isLong(file))];
  }
}
