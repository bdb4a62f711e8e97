import { setFlagsFromString } from 'node:v8';
import {
  type AuthorizationAnswer,
  type CedarValueJson,
  type DetailedError,
  type EntityJson,
  type PolicyJson,
  policySetTextToParts,
  policyToJson,
  preparsePolicySet,
  preparseSchema,
  schemaToJsonWithResolvedTypes,
  statefulIsAuthorized,
  type TypeAndId,
  validate,
} from '@cedar-policy/cedar-wasm/nodejs';
import { MayflyError } from '../domain/errors.ts';

// Node 20's optimising compiler inlines calls into wasm, and a deoptimisation inside one that returns a reference, as Cedar's
// do, ends the process: "Fatal error … unreachable code" in Deoptimizer::DoComputeBuiltinContinuation. Seen under load.
setFlagsFromString('--no-turbo-inline-js-wasm-calls');

/**
 * The only module that touches Cedar. It turns Cedar's traps into plain answers: a failure is never an exception
 * and never an allow, and what Cedar skips (a policy that errors) denies.
 */

export type { CedarValueJson, EntityJson, PolicyJson, TypeAndId };

export interface CedarFault {
  /** The policy it is about, where it is about one. */
  readonly policyId: string | null;
  /** Offset into the text of that policy (or of the schema) in UTF-8 bytes, where Cedar tells it. */
  readonly byteOffset: number | null;
  readonly message: string;
}

export type Parsed<T> =
  | { readonly ok: true; readonly value: T }
  | { readonly ok: false; readonly faults: readonly CedarFault[] };

export interface CedarRequest {
  readonly principal: TypeAndId;
  readonly action: TypeAndId;
  readonly resource: TypeAndId;
  readonly context: Readonly<Record<string, CedarValueJson>>;
  readonly entities: readonly EntityJson[];
}

export interface CedarAnswer {
  /** Never true when `errors` is not empty. */
  readonly allowed: boolean;
  /** Ids of the policies that determined it, sorted. */
  readonly policies: readonly string[];
  readonly errors: readonly string[];
}

/** Parses one static policy. Templates are refused. */
export function parsePolicy(text: string): Parsed<PolicyJson> {
  return guarded(() => {
    const answer = policyToJson(text);
    return answer.type === 'success'
      ? { ok: true, value: answer.json }
      : { ok: false, faults: answer.errors.map((error) => fault(error, null)) };
  });
}

/**
 * Whether Cedar can still read anything. Once it has overrun its stack it traps on every call, so everything is
 * denied until the process starts anew: readiness asks this. The bounds of `cedar-text.ts` keep it from happening.
 */
export function cedarWorks(): boolean {
  return parsePolicy('permit (principal, action, resource);').ok;
}

/** How many policies Cedar itself sees in a text. */
export function countPolicies(text: string): Parsed<number> {
  return guarded(() => {
    const answer = policySetTextToParts(text);
    return answer.type === 'success'
      ? { ok: true, value: answer.policies.length + answer.policy_templates.length }
      : { ok: false, faults: answer.errors.map((error) => fault(error, null)) };
  });
}

/** A schema with every name resolved, as plain data by namespace. */
export function resolveSchema(text: string): Parsed<ReadonlyMap<string, unknown>> {
  return guarded(() => {
    const answer = schemaToJsonWithResolvedTypes(text);
    return answer.type === 'success'
      ? { ok: true, value: new Map<string, unknown>(Object.entries(answer.json)) }
      : { ok: false, faults: answer.errors.map((error) => fault(error, null)) };
  });
}

/**
 * Strict validation. Warnings count as faults: a policy that can never apply, or that looks like something else
 * to a reader, is not what its author meant.
 */
export function validatePolicies(schema: string, policies: Readonly<Record<string, string>>): readonly CedarFault[] {
  const checked = guarded<readonly CedarFault[]>(() => {
    const answer = validate({
      schema,
      policies: { staticPolicies: { ...policies } },
      validationSettings: { mode: 'strict' },
    });
    if (answer.type === 'failure') return { ok: false, faults: answer.errors.map((error) => fault(error, null)) };
    const broken = new Set(answer.validationErrors.map(({ policyId }) => policyId));
    // What cannot be typed is also "impossible": the error alone says it.
    const warnings = answer.validationWarnings.filter(({ policyId }) => !broken.has(policyId));
    const about = [...answer.validationErrors, ...warnings].map(({ policyId, error }) => fault(error, policyId));
    return { ok: true, value: [...about, ...answer.otherWarnings.map((error) => fault(error, null))] };
  });
  return checked.ok ? checked.value : checked.faults;
}

/** `for-schema`: each value is of the type that this slot's schema has for it. `elsewhere`: under another schema, perhaps. */
export type Written = 'for-schema' | 'elsewhere';

/** A policy set made ready inside Cedar, under an id of its own. */
export interface CedarSlot {
  /** Never throws: anything unexpected is a deny with `errors`. */
  authorize(request: CedarRequest, written?: Written): CedarAnswer;
  /** Gives the id back. Afterwards this slot only denies. */
  close(): void;
}

/**
 * Cedar keeps what it preparsed until the same id is used again, so ids are few and come back: 300 replacements of
 * one set of 1000 policies cost 29 MB, 50 sets under new ids 150 MB (measured). The cap turns a leak into an error.
 */
const MAX_SLOTS = 16;
const freeSlots: string[] = [];
let slotsMade = 0;

/** For tests and diagnostics: ids ever made, and how many of them are in use. */
export function slotUse(): { readonly made: number; readonly open: number } {
  return { made: slotsMade, open: slotsMade - freeSlots.length };
}

/**
 * Preparses a schema and its policies. Nothing that answers meanwhile is touched.
 * @throws Error when Cedar refuses either; MayflyError `policies_busy` when too many slots are open.
 */
export function openSlot(schema: string, policies: Readonly<Record<string, string>>): CedarSlot {
  const id = takeSlot();
  let open = true;
  const close = (): void => {
    if (!open) return;
    open = false;
    // Empty, so that not even a mistake here could answer by a set that is gone.
    guarded(() => prepared(preparsePolicySet(id, { staticPolicies: {} })));
    freeSlots.push(id);
  };
  const ready = guarded(() => {
    const parsed = prepared(preparseSchema(id, schema));
    return parsed.ok ? prepared(preparsePolicySet(id, { staticPolicies: { ...policies } })) : parsed;
  });
  if (!ready.ok) {
    close();
    throw new Error(`Cedar refuses the policies: ${ready.faults.map(({ message }) => message).join('; ')}`);
  }
  return {
    authorize: (request, written = 'elsewhere') =>
      open ? authorize(id, request, written) : denied('this policy set is closed'),
    close,
  };
}

function takeSlot(): string {
  const free = freeSlots.pop();
  if (free !== undefined) return free;
  if (slotsMade >= MAX_SLOTS) throw new MayflyError('policies_busy', `${MAX_SLOTS} policy sets are open at once.`);
  slotsMade += 1;
  return `mayfly-${slotsMade}`;
}

function authorize(id: string, request: CedarRequest, written: Written): CedarAnswer {
  // Cedar evaluates around an entity that is not there; then a forbid that reads it vanishes.
  for (const named of [request.principal, request.resource]) {
    const known = request.entities.some(({ uid }) => isUid(uid, named));
    if (!known) return denied(`the entity ${named.type}::${JSON.stringify(named.id)} is missing`);
  }
  try {
    const answer = statefulIsAuthorized({
      principal: request.principal,
      action: request.action,
      resource: request.resource,
      context: written === 'for-schema' ? bareMembers(request.context) : { ...request.context },
      entities: written === 'for-schema' ? request.entities.map(bareEntity) : [...request.entities],
      preparsedSchemaName: id,
      preparsedPolicySetId: id,
      validateRequest: true,
    });
    return readAnswer(answer);
  } catch (error) {
    return denied(error instanceof Error ? error.message : 'Cedar failed');
  }
}

/**
 * Where the schema says that an entity or an extension value belongs, Cedar takes it without the wrapping that names it as one. It looks
 * through each wrapping again for every level around it: without them a decision takes a seventh less time.
 */
function bare(value: CedarValueJson): CedarValueJson {
  if (typeof value !== 'object' || value === null) return value;
  if (Array.isArray(value)) return value.map(bare);
  if ('__entity' in value && isTypeAndId(value.__entity)) return { type: value.__entity.type, id: value.__entity.id };
  if ('__extn' in value && isOfText(value.__extn)) return value.__extn.arg;
  return bareMembers(value);
}

function bareMembers(members: object): Record<string, CedarValueJson> {
  return Object.fromEntries(
    Object.entries(members).map(([name, value]: [string, CedarValueJson]) => [name, bare(value)]),
  );
}

function bareEntity(entity: EntityJson): EntityJson {
  return { ...entity, attrs: bareMembers(entity.attrs) };
}

function isTypeAndId(named: CedarValueJson | TypeAndId): named is TypeAndId {
  return typeof named === 'object' && named !== null && 'type' in named && 'id' in named;
}

/** A value that one text makes, as all of Cedar's types can be. */
function isOfText(extension: unknown): extension is { readonly arg: string } {
  return typeof extension === 'object' && extension !== null && 'arg' in extension && typeof extension.arg === 'string';
}

function readAnswer(answer: AuthorizationAnswer): CedarAnswer {
  if (answer.type !== 'success') return denied(...answer.errors.map(({ message }) => message));
  const { decision, diagnostics } = answer.response;
  const errors = diagnostics.errors.map(({ policyId, error }) => `${policyId}: ${error.message}`);
  const allowed = decision === 'allow' && errors.length === 0;
  return { allowed, policies: [...diagnostics.reason].sort(), errors };
}

function denied(...errors: string[]): CedarAnswer {
  return { allowed: false, policies: [], errors: errors.length === 0 ? ['Cedar failed'] : errors };
}

function isUid(uid: EntityJson['uid'], named: TypeAndId): boolean {
  const { type, id } = '__entity' in uid ? uid.__entity : uid;
  return type === named.type && id === named.id;
}

function prepared(answer: { type: 'success' } | { type: 'failure'; errors: DetailedError[] }): Parsed<null> {
  return answer.type === 'success'
    ? { ok: true, value: null }
    : { ok: false, faults: answer.errors.map((error) => fault(error, null)) };
}

function fault(error: DetailedError, policyId: string | null): CedarFault {
  const message = error.message
    .replace(/^for policy `[^`]*`, /, '')
    .replace(/^failed to parse policy from string: /, '');
  return {
    policyId,
    byteOffset: error.sourceLocations?.[0]?.start ?? null,
    message: error.help === null ? message : `${message} (${error.help})`,
  };
}

/** Cedar throws where a text cannot cross into WebAssembly, or nests so deeply that its stack ends. */
function guarded<T>(work: () => Parsed<T>): Parsed<T> {
  try {
    return work();
  } catch {
    return { ok: false, faults: [{ policyId: null, byteOffset: null, message: 'Cedar could not read this' }] };
  }
}
