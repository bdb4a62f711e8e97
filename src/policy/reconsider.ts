import { z } from 'zod';
import type { Catalog } from '../catalog/types.ts';
import type { CedarRequest, CedarValueJson, EntityJson, TypeAndId } from './cedar.ts';
import { entityKey, isOurs, type Stored } from './fit.ts';
import { entitlementEntities } from './request.ts';
import { reachable } from './stored-entities.ts';

/** What a request about a grant can not be put to another catalog for. */
export type Gone = 'entitlement_gone' | 'target_gone';

/** The catalog that an earlier request is put to. */
export interface Proposed {
  readonly catalog: Pick<Catalog, 'entitlements' | 'targets'>;
  /** Its entities by {@link entityKey}, and those that policies of it name. */
  readonly stored: Stored;
  readonly named: readonly TypeAndId[];
  /** Keys of the entities that the catalog in force stores: of what left it nothing is known any more. */
  readonly storedBefore: ReadonlySet<string>;
}

/**
 * An earlier request in the words of another catalog: what the catalog says of entitlements, targets and entities of its own is taken
 * from there; who asked, when, and what there was then stay as they were.
 */
export function reconsidered(request: CedarRequest, proposed: Proposed): CedarRequest | Gone {
  return request.action.type === 'Mayfly::Action' ? ofGrant(request, proposed) : ofEvaluation(request, proposed);
}

function ofGrant(request: CedarRequest, { catalog }: Proposed): CedarRequest | Gone {
  const entitlement = catalog.entitlements.get(request.resource.id);
  if (entitlement === undefined) return 'entitlement_gone';
  const target = catalog.targets.get(entitlement.target);
  if (target === undefined) return 'target_gone';
  const own = new Set(['Mayfly::Entitlement', 'Mayfly::Target']);
  const told = request.entities.filter(({ uid }) => !own.has(named(uid).type));
  const before = request.entities.find(({ uid }) => named(uid).type === 'Mayfly::Target');
  // A credential that lives is where it was made.
  const moved = before !== undefined && named(before.uid).id !== target.name;
  if (moved && request.action.id !== 'issue') return 'target_gone';
  return {
    ...request,
    context: inWordsOf(catalog, request.context),
    entities: [...told, ...entitlementEntities(entitlement, target)],
  };
}

/** As `cedarRequest` writes it. */
const treeSchema = z
  .object({ held: z.array(z.object({ __entity: z.object({ type: z.string(), id: z.string() }) })) })
  .catchall(z.json());

/** The data classes of what the tree held then, as this catalog has them. */
function inWordsOf(
  { entitlements }: Proposed['catalog'],
  context: CedarRequest['context'],
): Readonly<Record<string, CedarValueJson>> {
  const read = treeSchema.safeParse(context['tree']);
  if (!read.success) return context;
  const classes = read.data.held.flatMap(({ __entity: { id } }) => entitlements.get(id)?.dataClasses ?? []);
  return { ...context, tree: { ...read.data, data_classes: [...new Set(classes)] } };
}

function ofEvaluation(request: CedarRequest, { stored, named: inPolicies, storedBefore }: Proposed): CedarRequest {
  const asked = new Set([request.principal, request.resource].map(entityKey));
  const about = request.entities.flatMap((entity): readonly EntityJson[] => {
    const uid = named(entity.uid);
    const key = entityKey(uid);
    if (isOurs(uid.type)) return [entity];
    const now = stored.get(key);
    // The others are there only because they were stored.
    if (!asked.has(key)) return [];
    if (now !== undefined) return [{ ...now, attrs: { ...entity.attrs, ...now.attrs } }];
    return [storedBefore.has(key) ? { uid: entity.uid, attrs: {}, parents: [] } : entity];
  });
  const known = new Set(about.map(({ uid }) => entityKey(named(uid))));
  const from = [...request.entities.map(({ uid }) => named(uid)), ...inPolicies];
  const above = about.flatMap(({ parents }) => parents.map(named));
  const others = reachable(stored, [...from, ...above]).filter(({ uid }) => !known.has(entityKey(named(uid))));
  return { ...request, entities: [...about, ...others] };
}

function named(uid: EntityJson['uid']): TypeAndId {
  return '__entity' in uid ? uid.__entity : uid;
}
