import { z } from 'zod';
import { entityFaults } from '../policy/stored-entities.ts';
import { shapesOf } from '../policy/shapes.ts';
import { fullSchema, schemaFaults } from '../policy/validate.ts';
import type { Fault } from './faults.ts';
import type { StoredEntity } from './types.ts';
import { readList, type YamlFile } from './yaml.ts';

const named = z.strictObject({ type: z.string().max(200), id: z.string().max(1000) });

const entitySchema = named.extend({
  attrs: z.record(z.string(), z.unknown()).default({}),
  parents: z.array(named).default([]),
  tags: z.record(z.string(), z.unknown()).default({}),
});

/**
 * Reads `entities.yaml`, a list.
 * @param schema The catalog's own part of the Cedar schema: each entity is held against it, unless it is itself at fault.
 */
export function readEntities(file: YamlFile, schema: string, faults: Fault[]): readonly StoredEntity[] {
  if (file.value === null) return [];
  const items = readList(file, [], entitySchema, faults);
  // What is too much for Cedar never gets to it.
  const shapes = schemaFaults(schema).length > 0 ? undefined : shapesOf(fullSchema(schema));
  const entities = items.map(({ value }) => value);
  for (const { index, path, message } of shapes === undefined ? [] : entityFaults(shapes, entities)) {
    const fault = items[index]?.fault(path, message);
    if (fault !== undefined) faults.push(fault);
  }
  return entities;
}
