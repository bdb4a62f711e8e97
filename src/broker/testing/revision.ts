import type { ActiveRevision } from '../../catalog/active.ts';
import type { Guarantee } from '../../domain/grant.ts';
import { trusting } from './trusting.ts';

export const READ = 'ledger-db/read-invoices';

export const guarantee: Guarantee = {
  revocation: 'immediate',
  native_expiry: true,
  ends_sessions: true,
  enumerable: true,
  min_ttl_seconds: 1,
  max_ttl_seconds: 3_600,
  says: 'Login and sessions end at once.',
};

/** It permits everything. */
export const active: ActiveRevision = {
  number: 1,
  catalog: {
    digest: 'sha256:00',
    files: {},
    ...trusting,
    targets: new Map([
      [
        'ledger-db',
        {
          name: 'ledger-db',
          provider: 'sample',
          connection: {},
          environment: 'demo',
          owner: 'team-finance',
          sensitivity: 'confidential',
          labels: {},
        },
      ],
    ]),
    entitlements: new Map([
      [
        READ,
        {
          name: READ,
          target: 'ledger-db',
          sensitivity: 'confidential',
          actions: ['read'],
          dataClasses: [],
          sink: false,
          maxTtlSeconds: 600,
          params: {},
          provider: {},
          onOwnedObjects: 'drop',
          sealedDelivery: 'optional',
        },
      ],
    ]),
    limits: { toxic: [], atMost: [] },
    toolGateways: [],
    signalSources: [],
    webhooks: [],
    policySet: { schema: '', policies: [], entities: [] },
    changeControl: { serial: null, fourEyes: [] },
  },
  policy: {
    digest: 'sha256:00',
    decide: () => ({
      ...{
        permitted: true,
        policies: ['reads'],
        maxTtlSeconds: null,
        perCall: false,
        sealedDelivery: false,
        approvalGroups: [],
      },
      ...{ reasons: [], errors: [], inputs: {} },
    }),
    evaluate: () => ({
      ...{
        permitted: true,
        policies: ['reads'],
        maxTtlSeconds: null,
        perCall: false,
        sealedDelivery: false,
        approvalGroups: [],
      },
      ...{ reasons: [], errors: [], inputs: {}, unfit: null, singleUse: false },
    }),
  },
};
