import type { PolicySet } from '../catalog/types.ts';
import { MayflyError } from '../domain/errors.ts';
import { annotationFaults, type Obligations, obligations } from './annotations.ts';
import { type CedarRequest, openSlot, parsePolicy } from './cedar.ts';
import { cedarRequest, recordedRequest } from './request.ts';
import type { DecisionRequest, PolicyDecision, PolicyEngine } from './types.ts';
import { fullSchema, policySetFaults, policyTexts } from './validate.ts';

const NOT_NAMED =
  'What is read here can not be taken back (guarantee irrevocable), and no policy that permits this accepts that by name.';

/** A policy engine over one policy set. It holds memory inside Cedar until it is closed. */
export interface OwnedPolicyEngine extends PolicyEngine {
  /** Decides again from the `inputs` of an earlier decision. Under the same policy set the answer is the same. */
  replay(inputs: unknown): PolicyDecision;
  /** Afterwards every decision is a deny with an error. */
  close(): void;
}

/**
 * Makes a policy set ready to decide. Several may live side by side; each decides by its own set only.
 * @param digest The catalog's digest, by which decisions are known.
 * @throws MayflyError `catalog_invalid` with every fault, when the set does not hold by itself. Names of the
 * catalog are not checked here.
 */
export function createPolicyEngine(policySet: PolicySet, digest: string): OwnedPolicyEngine {
  const faults = policySetFaults(policySet);
  const broken = faults.length > 0 ? faults : annotationsBroken(policySet);
  if (broken.length > 0) {
    const errors = broken.map(({ file, line, message }) => ({ path: `${file}:${line}`, message }));
    throw new MayflyError('catalog_invalid', 'The policies are not valid.', { errors });
  }
  const table = new Map(policySet.policies.map(({ id, annotations }) => [id, obligations(annotations)]));
  const slot = openSlot(fullSchema(policySet.schema), policyTexts(policySet));

  const answer = (request: CedarRequest): PolicyDecision => {
    const { allowed, policies, errors } = slot.authorize(request);
    // A permit that was written without a thought of it must not let it through (DESIGN §2, 4).
    const named = policies.some((id) => table.get(id)?.acceptsIrrevocable === true);
    if (allowed && request.context['guarantee'] === 'irrevocable' && !named) {
      return {
        permitted: false,
        policies: [],
        maxTtlSeconds: null,
        reasons: [NOT_NAMED],
        errors,
        inputs: { ...request },
      };
    }
    return {
      permitted: allowed,
      policies,
      maxTtlSeconds: allowed ? leastTtl(policies, table) : null,
      reasons: allowed ? [] : policies.flatMap((id) => table.get(id)?.reason ?? []),
      errors,
      inputs: { ...request },
    };
  };
  const failed = (message: string): PolicyDecision => ({
    permitted: false,
    policies: [],
    maxTtlSeconds: null,
    reasons: [],
    errors: [message],
    inputs: {},
  });
  return {
    digest,
    decide: (request: DecisionRequest) => {
      try {
        return answer(cedarRequest(request));
      } catch (error) {
        // An impossible date, say. Whatever could not be asked is denied.
        return failed(error instanceof Error ? error.message : 'the request could not be put to policy');
      }
    },
    replay: (inputs) => {
      const request = recordedRequest(inputs);
      return request === undefined ? failed('these are not the inputs of a decision') : answer(request);
    },
    close: () => slot.close(),
  };
}

/** A policy set may come from storage, so what is read from annotations is checked again where it is used. */
function annotationsBroken(policySet: PolicySet): readonly { file: string; line: number; message: string }[] {
  return policySet.policies.flatMap(({ id, file, line, text, annotations }) => {
    const parsed = parsePolicy(text);
    if (!parsed.ok) return [{ file, line, message: `${id}: could not be read` }];
    return annotationFaults(parsed.value.effect, annotations).map(({ message }) => ({ file, line, message }));
  });
}

function leastTtl(policies: readonly string[], table: ReadonlyMap<string, Obligations>): number | null {
  const caps = policies.flatMap((id) => table.get(id)?.maxTtlSeconds ?? []);
  return caps.length === 0 ? null : Math.min(...caps);
}
