import { isAlias, isMap, isNode, isScalar, isSeq, LineCounter, type Node, type Pair, parseDocument, visit } from 'yaml';
import type { z } from 'zod';
import { type Fault, jsonPath } from './faults.ts';

/** Deeper than anything the catalog's schemas know; keeps every later walk shallow. */
const MAX_DEPTH = 40;

/** One YAML file as plain data, with the way back from a place in the data to its line. */
export interface YamlFile {
  readonly path: string;
  readonly value: unknown;
  /** The line of the key or item that the path names; where it is absent, of the nearest parent. */
  fault(path: readonly PropertyKey[], message: string): Fault;
}

/** One item of a list that fits its schema. `fault` takes paths within the item. */
export interface Item<T> {
  readonly value: T;
  readonly file: YamlFile;
  /** Where in the file the item stands. */
  readonly base: readonly PropertyKey[];
  fault(path: readonly PropertyKey[], message: string): Fault;
}

/**
 * Reads YAML 1.2 without its traps: duplicate keys, aliases, merge keys, tags, several documents and keys that
 * are not text are refused. Whatever is wrong is added to `faults`; then the answer is undefined.
 */
export function readYaml(path: string, text: string, faults: Fault[]): YamlFile | undefined {
  const lines = new LineCounter();
  const lineAt = (offset: number): number => Math.max(1, lines.linePos(offset).line);
  const refuse = (offset: number, message: string): void => {
    faults.push({ file: path, line: lineAt(offset), path: '', message });
  };
  const before = faults.length;
  try {
    const document = parseDocument(text, {
      lineCounter: lines,
      prettyErrors: false,
      strict: true,
      stringKeys: true,
      uniqueKeys: true,
      version: '1.2',
      schema: 'core',
      resolveKnownTags: false,
      // `silent` would also keep quiet about a second document.
      logLevel: 'error',
    });
    const problems = [...document.errors, ...document.warnings];
    for (const { pos } of problems.filter(({ code }) => code === 'DUPLICATE_KEY')) {
      refuse(pos[0], 'this key stands here twice');
    }
    // After the first one a reader is only guessing.
    const first = problems.find(({ code }) => code !== 'DUPLICATE_KEY');
    const directive = text.search(/^%/m);
    if (directive >= 0) refuse(directive, 'directives are not accepted');
    if (first !== undefined) refuse(first.pos[0], withoutQuotation(first.message));
    if (faults.length > before) return undefined;
    visit(document, (_key, node, parents) => {
      const offset = isNode(node) ? (node.range?.[0] ?? 0) : 0;
      if (parents.length > MAX_DEPTH * 2) {
        refuse(offset, 'is nested too deeply');
        return visit.BREAK;
      }
      if (isAlias(node)) refuse(offset, 'aliases are not accepted: write the value where it counts');
      if (isScalar(node) && node.value === '__proto__') refuse(offset, 'is not a name that the catalog accepts');
      return undefined;
    });
    if (faults.length > before) return undefined;
    const value: unknown = document.toJS();
    const root = document.contents;
    return {
      path,
      value,
      fault: (place, message) => ({
        file: path,
        line: lineAt(offsetOf(root, place)),
        path: jsonPath(place),
        message,
      }),
    };
  } catch {
    // The parser gives up on absurd nesting by overflowing the stack.
    refuse(0, 'could not be read as YAML');
    return undefined;
  }
}

/** The parser's messages end with a piece of the text, after a colon or a bracket; that may be a secret. */
function withoutQuotation(message: string): string {
  return message.replace(/\s*[:;("\\].*$/s, '');
}

function offsetOf(root: Node | null, path: readonly PropertyKey[]): number {
  let offset = root?.range?.[0] ?? 0;
  let node: unknown = root;
  for (const key of path) {
    if (isMap(node)) {
      const pair: Pair | undefined = node.items.find((item) => isScalar(item.key) && item.key.value === key);
      if (pair === undefined) return offset;
      if (isScalar(pair.key)) offset = pair.key.range?.[0] ?? offset;
      node = pair.value;
    } else if (isSeq(node) && typeof key === 'number') {
      const item: unknown = node.items[key];
      if (!isNode(item)) return offset;
      offset = item.range?.[0] ?? offset;
      node = item;
    } else {
      return offset;
    }
  }
  return offset;
}

/** What `path` names in plain data, or undefined. */
function valueAt(value: unknown, path: readonly PropertyKey[]): unknown {
  return path.reduce<unknown>(
    (at, key) => (typeof at === 'object' && at !== null && Object.hasOwn(at, key) ? Reflect.get(at, key) : undefined),
    value,
  );
}

/** zod's issues as faults of this file: one for each unknown key, at that key's own line. */
export function schemaFaults(
  file: YamlFile,
  base: readonly PropertyKey[],
  issues: readonly z.core.$ZodIssue[],
): readonly Fault[] {
  return issues.flatMap((issue) => {
    const path = [...base, ...issue.path];
    if (issue.code === 'unrecognized_keys') {
      return issue.keys.map((key) => file.fault([...path, key], 'unknown field'));
    }
    const missing = issue.code === 'invalid_type' && valueAt(file.value, path) === undefined;
    return [file.fault(path, missing ? 'is required' : issue.message)];
  });
}

/** Reads what stands at `path` of the file with one schema. */
export function readItem<T>(
  file: YamlFile,
  path: readonly PropertyKey[],
  schema: z.ZodType<T>,
  faults: Fault[],
): Item<T> | undefined {
  const parsed = schema.safeParse(valueAt(file.value, path));
  if (!parsed.success) {
    faults.push(...schemaFaults(file, path, parsed.error.issues));
    return undefined;
  }
  return {
    value: parsed.data,
    file,
    base: path,
    fault: (place, message) => file.fault([...path, ...place], message),
  };
}

/** Reads a list item by item, so that one bad item does not hide what is wrong between the others. */
export function readList<T>(
  file: YamlFile,
  path: readonly PropertyKey[],
  schema: z.ZodType<T>,
  faults: Fault[],
): readonly Item<T>[] {
  const list = valueAt(file.value, path);
  if (!Array.isArray(list)) {
    faults.push(file.fault(path, 'must be a list'));
    return [];
  }
  return list.flatMap((_, index) => readItem(file, [...path, index], schema, faults) ?? []);
}

/** Names that a list declares, also those of items that do not fit: nothing that refers to them is dangling. */
export function declaredNames(value: unknown): ReadonlySet<string> {
  if (!Array.isArray(value)) return new Set();
  return new Set(
    value.flatMap((item: unknown) => {
      const name = valueAt(item, ['name']);
      return typeof name === 'string' ? [name] : [];
    }),
  );
}
