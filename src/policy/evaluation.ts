import { isDeepStrictEqual } from 'node:util';
import type { CedarRequest, CedarValueJson, EntityJson, TypeAndId } from './cedar.ts';
import { entitiesIn, entityKey, fit, fitMembers, isOurs, mayBeBare, Misfit, type Stored } from './fit.ts';
import { datetime, signalContext, taskContext, taskEntities, uid, workloadEntity } from './request.ts';
import { type ActionShape, actionKey, type EntityShape, type Members, type Shapes } from './shapes.ts';
import { reachable } from './stored-entities.ts';
import type { Asked, EvaluationRequest } from './types.ts';

/** What the asker's own words become: members of `context`, where the action declares them. */
const SAID = 'caller';
const ACTION_PROPERTIES = 'action_properties';
/** What the broker itself may put there. */
const FACTS: readonly string[] = [
  ...['now', 'own', 'tree', 'proof_of_possession'],
  ...['incident', 'change_freeze', 'device', 'user', 'signals'],
];

export interface EvaluationTerms {
  readonly shapes: Shapes;
  readonly stored: Stored;
  /** Entities that policies name. */
  readonly named: readonly TypeAndId[];
}

/**
 * Puts an AuthZEN request into the terms of the catalog's schema. What is stored or the broker's own wins over what is said of it; what
 * the schema does not declare is dropped.
 * @throws Misfit when a type or action is unknown, or something said is not of the declared kind.
 */
export function evaluationRequest(terms: EvaluationTerms, request: EvaluationRequest): CedarRequest {
  const { shapes, stored, named } = terms;
  const { action, resource } = request;
  const actionShape = shapes.actions.get(actionKey('Action', action.name));
  if (actionShape === undefined) throw new Misfit(['action'], 'is not known to the catalog');
  const about = [...subjectEntities(terms, request), askedEntity(terms, resource, 'resource')];
  const [principal = uid('Task', '')] = about.map(uidOf);
  const target = { type: resource.type, id: resource.id };
  if (!actionShape.principals.includes(principal.type)) throw new Misfit(['action'], 'is not for such a subject');
  if (!actionShape.resources.includes(target.type)) throw new Misfit(['action'], 'is not for such a resource');
  const context = contextOf(actionShape, request);
  const told = entitiesIn([...about.map(({ attrs }) => attrs), context]);
  for (const one of told) {
    if (!stored.has(entityKey(one)) && !isOurs(one.type) && !mayBeBare(shapes, one))
      throw new Misfit([], `names a ${one.type} that is not known to the catalog`);
  }
  const own = new Set(about.map((entity) => entityKey(uidOf(entity))));
  const above = about.flatMap(({ parents }) => parents.map(uidOfParent));
  const others = reachable(stored, [...told, ...above, ...named]).filter((one) => !own.has(entityKey(uidOf(one))));
  const once = new Map([...about, ...others].map((entity) => [entityKey(uidOf(entity)), entity]));
  return {
    principal,
    action: { type: 'Action', id: action.name },
    resource: target,
    context,
    entities: [...once.values()],
  };
}

function subjectEntities(terms: EvaluationTerms, { subject, signals }: EvaluationRequest): readonly EntityJson[] {
  if (subject.kind === 'task') return taskEntities(subject.task, signals);
  if (subject.kind === 'workload') return [workloadEntity(subject.workload, signals)];
  return [askedEntity(terms, subject.asked, 'subject')];
}

/** As it is stored, and what is said of it where nothing is. */
function askedEntity(terms: EvaluationTerms, asked: Asked, place: 'subject' | 'resource'): EntityJson {
  const { type, id, properties } = asked;
  const shape = terms.shapes.entities.get(type);
  if (shape === undefined || isOurs(type)) throw new Misfit([place], 'is of a type that the catalog does not have');
  if (shape.ids !== null && !shape.ids.includes(id)) throw new Misfit([place], 'is not one that the catalog names');
  const known = terms.stored.get(entityKey(asked));
  const said = fitMembers(unknownOf(shape, known), properties, [place, 'properties']);
  return known === undefined
    ? { uid: { type, id }, attrs: said, parents: [] }
    : { ...known, attrs: { ...said, ...known.attrs } };
}

function unknownOf({ attributes }: EntityShape, known: EntityJson | undefined): Members {
  return new Map([...attributes].filter(([name]) => known === undefined || !Object.hasOwn(known.attrs, name)));
}

/** The broker's own facts under their names, what the asker says under `caller` and `action_properties`: only what the action declares. */
function contextOf({ context }: ActionShape, request: EvaluationRequest): Record<string, CedarValueJson> {
  const { subject, action, said, now } = request;
  const { device, user, ...wherever } = signalContext(request.signals);
  const facts: Readonly<Record<string, CedarValueJson>> = {
    now: datetime(now),
    ...wherever,
    ...(subject.kind === 'other' ? {} : { device }),
    ...(subject.kind === 'task' ? { user } : {}),
    ...(subject.kind === 'task' ? taskContext(subject.task, subject.history) : {}),
  };
  const words = new Map([
    [SAID, { value: said, path: ['context'] }],
    [ACTION_PROPERTIES, { value: action.properties, path: ['action', 'properties'] }],
  ]);
  return Object.fromEntries(
    [...context].flatMap(([name, { shape, required }]): [string, CedarValueJson][] => {
      const word = words.get(name);
      if (word !== undefined) return [[name, fit(shape, word.value, word.path)]];
      const fact = Object.hasOwn(facts, name) ? facts[name] : undefined;
      if (fact !== undefined) return [[name, fact]];
      if (required) throw new Misfit(['action'], 'needs what is not known of such a subject');
      return [];
    }),
  );
}

function uidOf({ uid: named }: EntityJson): TypeAndId {
  return uidOfParent(named);
}

function uidOfParent(named: EntityJson['uid']): TypeAndId {
  return '__entity' in named ? named.__entity : named;
}

/** `resource.properties.owner must be text`: for the asker. */
export function sayMisfit({ path, message }: Misfit): string {
  return [path.join('.'), message].filter((part) => part !== '').join(' ');
}

/** What an action of the catalog's own declares in its context that nobody would ever fill, or not so. */
export function contextFaults({ actions }: Shapes): readonly { readonly action: string; readonly member: string }[] {
  const facts = actions.get(actionKey('Mayfly::Action', 'issue'))?.context;
  return [...actions].flatMap(([key, { context }]) =>
    !key.startsWith('Action::')
      ? []
      : [...context].flatMap(([member, { shape }]) => {
          const known = [SAID, ACTION_PROPERTIES].includes(member)
            ? shape.kind === 'record'
            : FACTS.includes(member) && isDeepStrictEqual(shape, facts?.get(member)?.shape);
          return known ? [] : [{ action: key, member }];
        }),
  );
}
