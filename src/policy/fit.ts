import { isIP } from 'node:net';
import type { CedarValueJson, EntityJson, TypeAndId } from './cedar.ts';
import type { Members, Shape, Shapes } from './shapes.ts';
import { ownNamespace } from './mayfly-schema.ts';

/** A value that is not what the schema declares. Its message tells no value. */
export class Misfit extends Error {
  readonly path: readonly PropertyKey[];

  constructor(path: readonly PropertyKey[], message: string) {
    super(message);
    this.path = path;
  }
}

type Path = readonly PropertyKey[];

/** What Cedar takes for each of its extension types, so that what a caller sends can not make a policy fail. */
const extensions = {
  datetime: /^\d{4}-\d{2}-\d{2}(T\d{2}:\d{2}:\d{2}(\.\d{3})?(Z|[+-]\d{4}))?$/,
  duration: /^-?(\d{1,9}d)?(\d{1,9}h)?(\d{1,9}m(?!s))?(\d{1,9}s)?(\d{1,9}ms)?$/,
  decimal: /^-?\d{1,14}\.\d{1,4}$/,
} as const;

function isExtension(fn: 'datetime' | 'duration' | 'decimal' | 'ip', text: string): boolean {
  if (fn === 'ip') {
    const [, address = '', bits] = /^([0-9.]+|[0-9a-fA-F:]+)(?:\/(0|[1-9]\d{0,2}))?$/.exec(text) ?? [];
    return isIP(address) !== 0 && Number(bits ?? 0) <= (isIP(address) === 4 ? 32 : 128);
  }
  if (!extensions[fn].test(text) || /^-?$/.test(text)) return false;
  return fn !== 'datetime' || isTime(text);
}

/** Whether the day is one of its month's, too: JavaScript would take the 31st of February. */
function isTime(text: string): boolean {
  const day = new Date(text.slice(0, 10));
  const time = Date.parse(text.replace(/([+-]\d{2})(\d{2})$/, '$1:$2'));
  return !Number.isNaN(time) && !Number.isNaN(day.getTime()) && day.toISOString().startsWith(text.slice(0, 10));
}

/** JSON as what the shape says, in Cedar's own writing. Members that it does not declare are dropped. @throws Misfit */
export function fit(shape: Shape, value: unknown, path: Path): CedarValueJson {
  switch (shape.kind) {
    case 'text':
      if (typeof value === 'string') return value;
      throw new Misfit(path, 'must be text');
    case 'whole':
      if (typeof value === 'number' && Number.isSafeInteger(value)) return value;
      throw new Misfit(path, 'must be a whole number');
    case 'truth':
      if (typeof value === 'boolean') return value;
      throw new Misfit(path, 'must be true or false');
    case 'extension':
      if (typeof value === 'string' && isExtension(shape.fn, value)) {
        return { __extn: { fn: shape.fn, arg: value } };
      }
      throw new Misfit(path, `must be text as Cedar’s ${shape.fn} reads it`);
    case 'set':
      if (Array.isArray(value)) return value.map((item: unknown, index) => fit(shape.of, item, [...path, index]));
      throw new Misfit(path, 'must be a list');
    case 'record':
      if (isRecord(value)) return fitMembers(shape.members, value, path);
      throw new Misfit(path, 'must be an object');
    default:
      if (!isRecord(value) || value['type'] !== shape.type || typeof value['id'] !== 'string')
        throw new Misfit(path, `must be {"type": "${shape.type}", "id": …}`);
      if (isOurs(shape.type)) throw new Misfit(path, 'can not be told: it is the broker’s own');
      return { __entity: { type: shape.type, id: value['id'] } };
  }
}

/** @throws Misfit also when a member is missing that must be there. */
export function fitMembers(
  members: Members,
  value: Readonly<Record<string, unknown>>,
  path: Path,
): Record<string, CedarValueJson> {
  return Object.fromEntries(
    [...members].flatMap(([name, { shape, required }]) => {
      if (Object.hasOwn(value, name)) return [[name, fit(shape, value[name], [...path, name])]];
      if (required) throw new Misfit([...path, name], 'is required');
      return [];
    }),
  );
}

/** Whether the type belongs to the broker: nobody else says what is true of it. */
export function isOurs(type: string): boolean {
  return type.startsWith(`${ownNamespace}::`);
}

/** Every entity that is named somewhere in a value in Cedar's writing. */
export function entitiesIn(value: unknown): readonly TypeAndId[] {
  if (Array.isArray(value)) return value.flatMap(entitiesIn);
  if (!isRecord(value)) return [];
  const { __entity: named } = value;
  if (isRecord(named) && typeof named['type'] === 'string' && typeof named['id'] === 'string')
    return [{ type: named['type'], id: named['id'] }];
  return Object.values(value).flatMap(entitiesIn);
}

/** Whether nothing needs to be known of this entity but its name. */
export function mayBeBare(shapes: Shapes, { type, id }: TypeAndId): boolean {
  const shape = shapes.entities.get(type);
  if (shape === undefined) return false;
  if (shape.ids !== null) return shape.ids.includes(id);
  return [...shape.attributes.values()].every(({ required }) => !required);
}

export function entityKey({ type, id }: TypeAndId): string {
  // Quoted: a type may hold `::` itself.
  return `${type}::${JSON.stringify(id)}`;
}

/** By their names. */
export type Stored = ReadonlyMap<string, EntityJson>;

function isRecord(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
