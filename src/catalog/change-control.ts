import { z } from 'zod';
import { fourEyesOperations } from '../domain/four-eyes.ts';
import type { Fault } from './faults.ts';
import { uniqueList } from './names.ts';
import type { ChangeControl } from './types.ts';
import { readItem, readYaml, type YamlFile } from './yaml.ts';

export const changeControlFile = 'catalog.yaml';

const schema = z.strictObject({
  serial: z.int('must be a whole number').min(1).max(Number.MAX_SAFE_INTEGER).optional(),
  four_eyes: uniqueList(z.enum(fourEyesOperations, `must be one of ${fourEyesOperations.join(', ')}`)).optional(),
});

/** What holds for a catalog without `catalog.yaml`. */
export const uncontrolled: ChangeControl = { serial: null, fourEyes: [] };

/** Reads `catalog.yaml`. */
export function readChangeControl(file: YamlFile, faults: Fault[]): ChangeControl {
  if (file.value === null) return uncontrolled;
  const read = readItem(file, [], schema, faults)?.value;
  return { serial: read?.serial ?? null, fourEyes: read?.four_eyes ?? [] };
}

/**
 * Of a stored revision, without loading the rest of it: what it says must hold though this release can not read its other files.
 * @throws Error when `catalog.yaml` can not be read: nobody applied it so.
 */
export function changeControlOf(files: Readonly<Record<string, string>>): ChangeControl {
  const text = Object.hasOwn(files, changeControlFile) ? files[changeControlFile] : undefined;
  if (text === undefined) return uncontrolled;
  const faults: Fault[] = [];
  const file = readYaml(changeControlFile, text, faults);
  const read = file && readChangeControl(file, faults);
  if (read === undefined || faults.length > 0) throw new Error(`The stored ${changeControlFile} can not be read.`);
  return read;
}
