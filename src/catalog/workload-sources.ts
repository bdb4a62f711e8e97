import { parseSpiffeId } from '../domain/spiffe-id.ts';
import type { WorkloadSourceWire } from './source-schema.ts';
import type { IssuerWire } from './trust-schema.ts';
import type { IssuerBase, WorkloadSource } from './types.ts';
import type { Item } from './yaml.ts';

/** GitHub's own, for github.com. Another one would be another kind of trust. */
const GITHUB_ISSUER = 'https://token.actions.githubusercontent.com';
/** The only algorithm that it signs with. */
const GITHUB_ALGORITHMS = ['RS256'];

/** The fields of `trust.yaml` that say what `issuer` and `jwks` say elsewhere. */
const fields: Readonly<Record<string, Readonly<Record<string, string>>>> = {
  'spiffe-jwt': { issuer: 'trust_domain', jwks: 'bundle' },
  'spiffe-x509': { issuer: 'trust_domain', jwks: 'bundle' },
  'github-actions': { issuer: 'kind' },
};

/** A source as the issuer that it is, whatever its kind calls that. Faults stand where its own kind has the field. */
export function asIssuer(item: Item<WorkloadSourceWire>): Item<IssuerWire> {
  const { value } = item;
  const own = fields[value.kind] ?? {};
  return {
    ...item,
    value: issuerOf(value),
    fault: ([first, ...rest], message) =>
      item.fault(first === undefined ? [] : [own[String(first)] ?? first, ...rest], message),
  };
}

function issuerOf(wire: WorkloadSourceWire): IssuerWire {
  switch (wire.kind) {
    case 'spiffe-jwt':
      return { ...wire, issuer: `spiffe://${wire.trust_domain}`, jwks: wire.bundle };
    case 'spiffe-x509': {
      const issuer = `spiffe://${wire.trust_domain}`;
      return { ...wire, issuer, jwks: wire.bundle, algorithms: [], speaksBy: 'certificates' };
    }
    case 'github-actions':
      return { ...wire, issuer: GITHUB_ISSUER, algorithms: GITHUB_ALGORITHMS };
    default:
      return wire;
  }
}

export function workloadSource(wire: WorkloadSourceWire, base: IssuerBase): WorkloadSource {
  switch (wire.kind) {
    case 'oidc':
      return {
        ...base,
        kind: wire.kind,
        subjectClaim: wire.subject,
        require: wire.require,
        tokenType: wire.token_type,
      };
    case 'spiffe-jwt':
    case 'spiffe-x509':
      return { ...base, kind: wire.kind, trustDomain: wire.trust_domain };
    case 'kubernetes':
      return { ...base, kind: wire.kind, tokenReview: wire.token_review };
    default:
      return {
        ...base,
        kind: wire.kind,
        repositories: wire.repositories.map((repository) => ({
          repositoryId: repository.repository_id,
          repositoryOwnerId: repository.repository_owner_id,
          jobWorkflowRef: repository.job_workflow_ref,
          environment: repository.environment,
          ref: repository.ref,
          as: repository.as,
        })),
      };
  }
}

/** Why an issuer's list may not name this subject of that source, or undefined. */
export function nameFault(source: WorkloadSourceWire, subject: string): string | undefined {
  const prefix = subject.endsWith('/*');
  if (source.kind !== 'spiffe-jwt' && source.kind !== 'spiffe-x509') {
    return prefix ? 'only workloads of a SPIFFE source are named by a path: name each workload' : undefined;
  }
  const id = parseSpiffeId(prefix ? subject.slice(0, -2) : subject);
  return id === undefined || id.path === '' || id.trustDomain !== source.trust_domain
    ? `must be a SPIFFE ID of the trust domain ${source.trust_domain}`
    : undefined;
}
