import type { StoredEntity } from '../catalog/types.ts';
import type { EntityJson, TypeAndId } from './cedar.ts';
import { entitiesIn, entityKey, fit, fitMembers, isOurs, mayBeBare, Misfit, type Stored } from './fit.ts';
import type { Shapes } from './shapes.ts';

/** One entity of `entities.yaml` as Cedar takes it. @throws Misfit */
export function storedEntity(shapes: Shapes, entity: StoredEntity): EntityJson {
  const { type, id, attrs, parents, tags } = entity;
  const shape = shapes.entities.get(type);
  if (shape === undefined || isOurs(type))
    throw new Misfit(['type'], `the schema has no type ${type} of the catalog’s own`);
  if (shape.ids !== null) throw new Misfit(['type'], 'an enumerated type has no entities but those that it names');
  for (const name of Object.keys(attrs)) {
    if (!shape.attributes.has(name)) throw new Misfit(['attrs', name], `${type} has no such attribute`);
  }
  for (const [index, parent] of parents.entries()) {
    if (!shape.parents.includes(parent.type)) throw new Misfit(['parents', index], `${type} is in no ${parent.type}`);
  }
  const { tags: tagShape } = shape;
  if (tagShape === null && Object.keys(tags).length > 0) throw new Misfit(['tags'], `${type} has no tags`);
  return {
    uid: { type, id },
    attrs: fitMembers(shape.attributes, attrs, ['attrs']),
    parents: parents.map((parent) => ({ ...parent })),
    ...(tagShape === null
      ? {}
      : {
          tags: Object.fromEntries(
            Object.entries(tags).map(([name, tag]) => [name, fit(tagShape, tag, ['tags', name])]),
          ),
        }),
  };
}

export interface EntityFault {
  /** Which of the list. */
  readonly index: number;
  readonly path: readonly PropertyKey[];
  readonly message: string;
}

/** Whatever is wrong with the list: what does not fit the schema, stands twice, names what is not there, or is within itself. */
export function entityFaults(shapes: Shapes, entities: readonly StoredEntity[]): readonly EntityFault[] {
  const places = new Map<string, number>();
  for (const [index, entity] of entities.entries()) {
    if (!places.has(entityKey(entity))) places.set(entityKey(entity), index);
  }
  const known = (named: TypeAndId) => places.has(entityKey(named)) || mayBeBare(shapes, named);
  return entities.flatMap((entity, index): readonly EntityFault[] => {
    const at = (path: readonly PropertyKey[], message: string) => ({ index, path, message });
    if (places.get(entityKey(entity)) !== index) return [at(['id'], `${entity.type} ${entity.id} stands here twice`)];
    try {
      const { attrs, tags } = storedEntity(shapes, entity);
      const dangling = [
        ...entitiesIn([attrs, tags ?? {}]).map((named) => ({ path: ['attrs'], named })),
        ...entity.parents.map((named, n) => ({ path: ['parents', n], named })),
      ].filter(({ named }) => !known(named));
      const within = isWithinItself(entity, entities, places);
      return [
        ...dangling.map(({ path, named }) => at(path, `there is no ${named.type} ${named.id}`)),
        ...(within ? [at(['parents'], 'it is within itself')] : []),
      ];
    } catch (error) {
      if (error instanceof Misfit) return [at(error.path, error.message)];
      throw error;
    }
  });
}

function isWithinItself(
  entity: StoredEntity,
  entities: readonly StoredEntity[],
  places: ReadonlyMap<string, number>,
): boolean {
  const seen = new Set<string>();
  const open = [...entity.parents];
  for (let next = open.pop(); next !== undefined; next = open.pop()) {
    const key = entityKey(next);
    if (key === entityKey(entity)) return true;
    if (seen.has(key)) continue;
    seen.add(key);
    open.push(...(entities[places.get(key) ?? -1]?.parents ?? []));
  }
  return false;
}

/** Those of the named ones that are stored, and all that can be reached from them. */
export function reachable(stored: Stored, named: readonly TypeAndId[]): readonly EntityJson[] {
  const found = new Map<string, EntityJson>();
  const open = named.map(entityKey);
  for (let key = open.pop(); key !== undefined; key = open.pop()) {
    const entity = stored.get(key);
    if (entity === undefined || found.has(key)) continue;
    found.set(key, entity);
    const { attrs, parents, tags } = entity;
    // As `storedEntity` writes them.
    const above = parents.flatMap((parent) => ('type' in parent ? [{ type: parent.type, id: parent.id }] : []));
    open.push(...[...entitiesIn([attrs, tags ?? {}]), ...above].map(entityKey));
  }
  return [...found.values()];
}
