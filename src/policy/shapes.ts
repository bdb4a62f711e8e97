import { z } from 'zod';
import { resolveSchema } from './cedar.ts';

/** What a value of the schema looks like. */
export type Shape =
  | { readonly kind: 'text' | 'whole' | 'truth' }
  /** `fn` is Cedar's own function that makes one of a text. */
  | { readonly kind: 'extension'; readonly fn: 'datetime' | 'duration' | 'decimal' | 'ip' }
  | { readonly kind: 'set'; readonly of: Shape }
  | { readonly kind: 'record'; readonly members: Members }
  | { readonly kind: 'entity'; readonly type: string };

export type Members = ReadonlyMap<string, { readonly shape: Shape; readonly required: boolean }>;

export interface EntityShape {
  readonly attributes: Members;
  /** Null: it has none. */
  readonly tags: Shape | null;
  /** Types of the entities that it may be in. */
  readonly parents: readonly string[];
  /** Of an enumerated type, all that there are. */
  readonly ids: readonly string[] | null;
}

export interface ActionShape {
  readonly principals: readonly string[];
  readonly resources: readonly string[];
  readonly context: Members;
}

/** A schema as plain data: how JSON from a caller or from a file becomes what Cedar takes. */
export interface Shapes {
  readonly entities: ReadonlyMap<string, EntityShape>;
  /** By type and id: `Action::"read"`. */
  readonly actions: ReadonlyMap<string, ActionShape>;
}

const typeJson = z.object({
  type: z.string(),
  name: z.string().optional(),
  required: z.boolean().optional(),
  get element() {
    return typeJson.optional();
  },
  get attributes() {
    return z.record(z.string(), typeJson).optional();
  },
});
type TypeJson = z.infer<typeof typeJson>;

const namespaceJson = z.object({
  commonTypes: z.record(z.string(), typeJson).default({}),
  entityTypes: z
    .record(
      z.string(),
      z.object({
        shape: typeJson.optional(),
        tags: typeJson.optional(),
        memberOfTypes: z.array(z.string()).default([]),
        enum: z.array(z.string()).optional(),
      }),
    )
    .default({}),
  actions: z
    .record(
      z.string(),
      z.object({
        appliesTo: z
          .object({
            principalTypes: z.array(z.string()).default([]),
            resourceTypes: z.array(z.string()).default([]),
            context: typeJson.optional(),
          })
          .optional(),
      }),
    )
    .default({}),
});

const plain: Readonly<Record<string, Shape>> = {
  String: { kind: 'text' },
  Long: { kind: 'whole' },
  Bool: { kind: 'truth' },
  Boolean: { kind: 'truth' },
  datetime: { kind: 'extension', fn: 'datetime' },
  duration: { kind: 'extension', fn: 'duration' },
  decimal: { kind: 'extension', fn: 'decimal' },
  ipaddr: { kind: 'extension', fn: 'ip' },
};

/** @param schema The whole schema. Undefined when Cedar does not take it. */
export function shapesOf(schema: string): Shapes | undefined {
  const resolved = resolveSchema(schema);
  if (!resolved.ok) return undefined;
  const namespaces = [...resolved.value].map(([name, json]) => [name, namespaceJson.parse(json)] as const);
  const within = (namespace: string, name: string) => (namespace === '' ? name : `${namespace}::${name}`);
  const common = new Map(
    namespaces.flatMap(([namespace, { commonTypes }]) =>
      Object.entries(commonTypes).map(([name, type]) => [within(namespace, name), type] as const),
    ),
  );
  const shapeOf = (type: TypeJson): Shape => {
    switch (type.type) {
      case 'Set':
        return { kind: 'set', of: shapeOf(type.element ?? { type: '' }) };
      case 'Record':
        return { kind: 'record', members: membersOf(type) };
      case 'Entity':
        return { kind: 'entity', type: type.name ?? '' };
    }
    const name = (type.type === 'Extension' ? type.name : type.type) ?? '';
    const named = common.get(name);
    const shape = named === undefined ? plain[name.replace(/^__cedar::/, '')] : shapeOf(named);
    if (shape === undefined) throw new Error(`The schema has a type that is not known here: ${name}`);
    return shape;
  };
  const membersOf = (type: TypeJson | undefined): Members => {
    if (type === undefined) return new Map();
    const named = common.get(type.type);
    if (named !== undefined) return membersOf(named);
    const members = Object.entries(type.attributes ?? {});
    return new Map(members.map(([name, of]) => [name, { shape: shapeOf(of), required: of.required !== false }]));
  };
  return {
    entities: new Map(
      namespaces.flatMap(([namespace, { entityTypes }]) =>
        Object.entries(entityTypes).map(([name, type]): [string, EntityShape] => [
          within(namespace, name),
          {
            attributes: membersOf(type.shape),
            tags: type.tags === undefined ? null : shapeOf(type.tags),
            parents: type.memberOfTypes,
            ids: type.enum ?? null,
          },
        ]),
      ),
    ),
    actions: new Map(
      namespaces.flatMap(([namespace, { actions }]) =>
        Object.entries(actions).map(([name, { appliesTo }]): [string, ActionShape] => [
          actionKey(within(namespace, 'Action'), name),
          {
            principals: appliesTo?.principalTypes ?? [],
            resources: appliesTo?.resourceTypes ?? [],
            context: membersOf(appliesTo?.context),
          },
        ]),
      ),
    ),
  };
}

export function actionKey(type: string, id: string): string {
  return `${type}::${JSON.stringify(id)}`;
}
