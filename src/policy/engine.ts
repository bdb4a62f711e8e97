import type { PolicySet } from '../catalog/types.ts';
import { MayflyError } from '../domain/errors.ts';
import { annotationFaults, type Obligations, obligations } from './annotations.ts';
import { type CedarRequest, type CedarSlot, openSlot, parsePolicy, type Written } from './cedar.ts';
import { type Gone, type Proposed, reconsidered } from './reconsider.ts';
import { cedarRequest, recordedRequest } from './request.ts';
import { type EvaluationTerms, evaluationRequest, sayMisfit } from './evaluation.ts';
import { entityKey, Misfit } from './fit.ts';
import { entitiesOf } from './names.ts';
import { shapesOf } from './shapes.ts';
import { storedEntity } from './stored-entities.ts';
import type { DecisionRequest, PolicyDecision, PolicyEngine } from './types.ts';
import { fullSchema, policySetFaults, policyTexts } from './validate.ts';

const NOT_NAMED =
  'What is read here can not be taken back (guarantee irrevocable), and no policy that permits this accepts that by name.';

const NOT_PROVEN = 'What permits this wants a task that names the agent’s key (@require_dpop).';

/** The longest life of a credential that is made for one call. */
const PER_CALL_SECONDS = 60;
const SINGLE_USE = 'What permits this is for single calls (@single_use): it gives no grant.';

const NOT_APPROVABLE = 'What permits this wants it approved (@require_approval), and only grants can be.';
/** No `@id` is so: the permit beside forbids that are only told. */
const ALL = '*';
const PERMIT_ALL = 'permit (principal, action, resource);';

/** Of the actions by which grants are asked for. */
const GRANTING = 'Mayfly::Action';

const NOT_PUT = 'the request could not be put to policy';

const denial: PolicyDecision = {
  permitted: false,
  policies: [],
  maxTtlSeconds: null,
  perCall: false,
  sealedDelivery: false,
  approvalGroups: [],
  reasons: [],
  errors: [],
  inputs: {},
};

/** A policy engine over one policy set. It holds memory inside Cedar until it is closed. */
export interface OwnedPolicyEngine extends PolicyEngine {
  /** Decides again from the `inputs` of an earlier decision. Under the same policy set the answer is the same. */
  replay(inputs: unknown): PolicyDecision;
  /** Decides by this set what was asked under another catalog. Answers why it can not even be asked. */
  reconsider(inputs: unknown, proposed: Pick<Proposed, 'catalog' | 'storedBefore'>): PolicyDecision | Gone;
  /** Afterwards every decision is a deny with an error. */
  close(): void;
}

/**
 * Makes a policy set ready to decide. Several may live side by side; each decides by its own set only.
 * @param digest The catalog's digest, by which decisions are known.
 * @throws MayflyError `policies_busy`; `catalog_invalid` with every fault, when the set does not hold by itself. Names of the
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
  const { slot, tellingSlot } = openSlots(policySet, table);
  let terms: EvaluationTerms | undefined;

  const answer = (request: CedarRequest, written: Written = 'elsewhere'): PolicyDecision => {
    const { allowed, policies, errors } = slot.authorize(request, written);
    const inputs = { ...request };
    const those = (which: (asked: Obligations) => boolean) =>
      policies.filter((id) => {
        const asked = table.get(id);
        return asked !== undefined && which(asked);
      });
    if (!allowed) {
      return { ...denial, policies, reasons: policies.flatMap((id) => table.get(id)?.reason ?? []), errors, inputs };
    }
    // A permit that was written without a thought of it must not let it through (DESIGN §2, 4).
    const irrevocable = request.context['guarantee'] === 'irrevocable';
    if (irrevocable && those(({ acceptsIrrevocable }) => acceptsIrrevocable).length === 0)
      return { ...denial, reasons: [NOT_NAMED], errors, inputs };
    // The strictest of several permits counts.
    const proven = request.context['proof_of_possession'] === true;
    const demanding = those(({ requiresProof }) => requiresProof);
    if (!proven && demanding.length > 0)
      return { ...denial, policies: demanding, reasons: [NOT_PROVEN], errors, inputs };
    // A grant is no single call: whoever wrote that into a permit meant no grant by it.
    const single = request.action.type === GRANTING ? those(({ singleUse }) => singleUse) : [];
    if (single.length > 0) return { ...denial, policies: single, reasons: [SINGLE_USE], errors, inputs };
    const approvalGroups = [...new Set(policies.flatMap((id) => table.get(id)?.approvalGroup ?? []))].sort();
    if (approvalGroups.length > 0 && request.action.type !== GRANTING) {
      const wanting = those(({ approvalGroup }) => approvalGroup !== null);
      return { ...denial, policies: wanting, reasons: [NOT_APPROVABLE], errors, inputs };
    }
    return {
      permitted: true,
      policies,
      maxTtlSeconds: leastTtl(policies, table),
      perCall: those(({ perCall }) => perCall).length > 0,
      sealedDelivery: those(({ requiresSealedDelivery }) => requiresSealedDelivery).length > 0,
      approvalGroups,
      reasons: [],
      errors,
      inputs,
      ...reportedOf(tellingSlot, request, written),
    };
  };
  const failed = (message: string): PolicyDecision => ({ ...denial, errors: [message] });
  return {
    digest,
    decide: (request: DecisionRequest) => {
      try {
        return answer(cedarRequest(request), 'for-schema');
      } catch (error) {
        // An impossible date, say. Whatever could not be asked is denied.
        return failed(error instanceof Error ? error.message : NOT_PUT);
      }
    },
    evaluate: (request) => {
      try {
        const decision = answer(evaluationRequest((terms ??= termsOf(policySet)), request), 'for-schema');
        const singleUse = decision.permitted && decision.policies.some((id) => table.get(id)?.singleUse === true);
        return { ...decision, unfit: null, singleUse };
      } catch (error) {
        if (error instanceof Misfit) return { ...denial, unfit: sayMisfit(error), singleUse: false };
        return { ...failed(error instanceof Error ? error.message : NOT_PUT), unfit: null, singleUse: false };
      }
    },
    replay: (inputs) => {
      const request = recordedRequest(inputs);
      return request === undefined ? failed('these are not the inputs of a decision') : answer(request);
    },
    reconsider: (inputs, proposed) => {
      const request = recordedRequest(inputs);
      if (request === undefined) return failed('these are not the inputs of a decision');
      const { stored, named } = (terms ??= termsOf(policySet));
      const again = reconsidered(request, { ...proposed, stored, named });
      return typeof again === 'string' ? again : answer(again);
    },
    close: () => {
      slot.close();
      tellingSlot?.close();
    },
  };
}

/** What is enforced, and what is only told: of that nothing but what it would deny is asked. */
function openSlots(
  policySet: PolicySet,
  table: ReadonlyMap<string, Obligations>,
): { slot: CedarSlot; tellingSlot: CedarSlot | undefined } {
  const schema = fullSchema(policySet.schema);
  const textsOf = (reportOnly: boolean) => {
    const policies = policySet.policies.filter(({ id }) => (table.get(id)?.reportOnly === true) === reportOnly);
    return policyTexts({ ...policySet, policies });
  };
  const told = textsOf(true);
  const slot = openSlot(schema, textsOf(false));
  if (Object.keys(told).length === 0) return { slot, tellingSlot: undefined };
  try {
    return { slot, tellingSlot: openSlot(schema, { ...told, [ALL]: PERMIT_ALL }) };
  } catch (error) {
    slot.close();
    throw error;
  }
}

/** Forbids that are only told, and would deny it. One that fails has to be told, too: it would deny everything. */
function reportedOf(
  slot: CedarSlot | undefined,
  request: CedarRequest,
  written: Written,
): Pick<PolicyDecision, 'reported'> {
  const answer = slot?.authorize(request, written);
  if (answer === undefined || answer.allowed) return {};
  return { reported: [...answer.policies.filter((id) => id !== ALL), ...answer.errors] };
}

/** What an evaluation is put into. The schema was resolved before, by `policySetFaults`. */
function termsOf({ schema, policies, entities }: PolicySet): EvaluationTerms {
  const shapes = shapesOf(fullSchema(schema)) ?? { entities: new Map(), actions: new Map() };
  return {
    shapes,
    stored: new Map(entities.map((entity) => [entityKey(entity), storedEntity(shapes, entity)])),
    named: policies.flatMap(({ text }) => {
      const parsed = parsePolicy(text);
      return parsed.ok ? entitiesOf(parsed.value) : [];
    }),
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
  const caps = policies.flatMap((id) => {
    const { maxTtlSeconds = null, perCall = false } = table.get(id) ?? {};
    return [...(maxTtlSeconds === null ? [] : [maxTtlSeconds]), ...(perCall ? [PER_CALL_SECONDS] : [])];
  });
  return caps.length === 0 ? null : Math.min(...caps);
}
