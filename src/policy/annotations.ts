/** What the broker itself reads from a policy's annotations. Cedar ignores them. */
export interface Obligations {
  /** From `@max_ttl`: the cap that this permit puts on a grant's life. */
  readonly maxTtlSeconds: number | null;
  /** From `@reason`: what the refused caller is told when this forbid determined the answer. */
  readonly reason: string | null;
  /** From `@require_dpop`: this permit holds only for tasks that name the agent's key. */
  readonly requiresProof: boolean;
  /** From `@require_sealed_delivery`: the credential goes out sealed or not at all. */
  readonly requiresSealedDelivery: boolean;
  /** From `@per_call`: for one call only. */
  readonly perCall: boolean;
  /** From `@single_use`: what this permits to evaluate is for one use, and it gives no grant. */
  readonly singleUse: boolean;
  /** From `@require_approval("group")`: a grant by this permit waits until somebody of that group approves it. */
  readonly approvalGroup: string | null;
  /** From `@enforce("report")`: what this forbid would deny is only told. */
  readonly reportOnly: boolean;
  /** From `@accepts("irrevocable")`: this permit also holds for what can not be taken back. */
  readonly acceptsIrrevocable: boolean;
}

/** The closed set. An annotation that nobody reads would be a promise that nobody keeps. */
const known = [
  'id',
  'max_ttl',
  'per_call',
  'require_approval',
  'require_dpop',
  'require_sealed_delivery',
  'single_use',
  'reason',
  'accepts',
  'enforce',
] as const;

/** As the catalog names its groups. */
const groupPattern = /^[a-z][a-z0-9-]{0,62}$/;

const unitSeconds: Readonly<Record<string, number>> = { s: 1, m: 60, h: 3600 };

/** The longest life of any grant, as on the wire. */
const MAX_TTL_SECONDS = 86_400;

/** `300s`, `5m` or `1h` in seconds; undefined for anything else, and beyond a day. */
export function ttlSeconds(text: string): number | undefined {
  const match = /^([1-9][0-9]{0,5})([smh])$/.exec(text);
  const seconds = Number(match?.[1]) * (unitSeconds[match?.[2] ?? ''] ?? Number.NaN);
  return seconds <= MAX_TTL_SECONDS ? seconds : undefined;
}

export interface AnnotationFault {
  readonly annotation: string;
  readonly message: string;
}

/** Checks the annotations of one policy. An empty list: {@link obligations} may be read. */
export function annotationFaults(
  effect: 'permit' | 'forbid',
  annotations: Readonly<Record<string, string>>,
): readonly AnnotationFault[] {
  return Object.entries(annotations).flatMap(([annotation, value]) => {
    const message = annotationFault(effect, annotation, value);
    return message === undefined ? [] : [{ annotation, message }];
  });
}

function annotationFault(effect: 'permit' | 'forbid', annotation: string, value: string): string | undefined {
  switch (annotation) {
    case 'id':
      return /^[a-z0-9]+([.-][a-z0-9]+)*$/.test(value) && value.length <= 100
        ? undefined
        : '@id must be lower-case letters and digits, joined by dashes or dots, at most 100 characters';
    case 'max_ttl':
      if (effect === 'forbid') return '@max_ttl on a forbid has no effect: put it on the permit';
      return ttlSeconds(value) === undefined ? '@max_ttl must be like "300s", "5m" or "1h", at most a day' : undefined;
    case 'reason':
      if (effect === 'permit') return '@reason on a permit is never told: put it on a forbid';
      return /^\S([^\p{C}]*\S)?$/u.test(value) && value.length <= 300
        ? undefined
        : '@reason must be one line of text, at most 300 characters';
    case 'per_call':
    case 'require_dpop':
    case 'require_sealed_delivery':
    case 'single_use':
      if (effect === 'forbid') return `@${annotation} on a forbid has no effect: put it on the permit`;
      return value === '' ? undefined : `@${annotation} takes no value`;
    case 'require_approval':
      if (effect === 'forbid') return '@require_approval on a forbid has no effect: put it on the permit';
      return groupPattern.test(value)
        ? undefined
        : '@require_approval must name a group, as under `groups` in trust.yaml';
    case 'accepts':
      if (effect === 'forbid') return '@accepts on a forbid has no effect: put it on the permit';
      return value === 'irrevocable'
        ? undefined
        : '@accepts must be "irrevocable": nothing else needs to be accepted by name';
    case 'enforce':
      if (effect === 'permit') return '@enforce on a permit has no effect: put it on a forbid';
      return value === 'report' ? undefined : '@enforce must be "report": without it a forbid is enforced';
    default:
      return `unknown annotation @${annotation}: the broker knows ${known.map((name) => `@${name}`).join(', ')}`;
  }
}

/** Reads annotations that {@link annotationFaults} found nothing wrong with. */
export function obligations(annotations: Readonly<Record<string, string>>): Obligations {
  const maxTtl = annotations['max_ttl'];
  return {
    maxTtlSeconds: maxTtl === undefined ? null : (ttlSeconds(maxTtl) ?? null),
    perCall: annotations['per_call'] !== undefined,
    requiresProof: annotations['require_dpop'] !== undefined,
    requiresSealedDelivery: annotations['require_sealed_delivery'] !== undefined,
    singleUse: annotations['single_use'] !== undefined,
    reason: annotations['reason'] ?? null,
    approvalGroup: annotations['require_approval'] ?? null,
    reportOnly: annotations['enforce'] === 'report',
    acceptsIrrevocable: annotations['accepts'] === 'irrevocable',
  };
}
