import type { PolicySource } from '../catalog/types.ts';
import { annotationFaults } from './annotations.ts';
import { countPolicies, parsePolicy } from './cedar.ts';
import { blank, lineOf, lineOfByte, policyTooDeep, policyTooLarge, splitPolicies } from './cedar-text.ts';

/** Something wrong at one line of a Cedar file. */
export interface PolicyFault {
  readonly file: string;
  readonly line: number;
  readonly message: string;
}

export interface PolicyFile {
  /** Those in which nothing is wrong. */
  readonly policies: readonly PolicySource[];
  readonly faults: readonly PolicyFault[];
}

/** Reads one `*.cedar` file into its policies. Whether they fit the schema and the catalog is checked later. */
export function readPolicyFile(file: string, text: string): PolicyFile {
  const pieces = splitPolicies(text);
  const read = pieces.map((piece) => readPolicy(file, lineOf(text, piece.start), piece.text));
  const faults = read.flatMap((one) => one.faults);
  const policies = read.flatMap((one) => one.policy ?? []);
  if (faults.length === 0) {
    // Our own reading decides what is a policy; Cedar must see the same ones.
    const counted = countPolicies(text);
    if (!counted.ok || counted.value !== pieces.length) {
      return { policies: [], faults: [{ file, line: 1, message: 'Cedar reads this file otherwise than the broker' }] };
    }
  }
  return { policies, faults };
}

interface PolicyRead {
  readonly policy?: PolicySource;
  readonly faults: readonly PolicyFault[];
}

function readPolicy(file: string, line: number, text: string): PolicyRead {
  const at = (within: number, message: string): PolicyFault => ({ file, line: line + within - 1, message });
  const tooLarge = policyTooLarge(text);
  if (tooLarge !== undefined) return { faults: [at(1, `this policy ${tooLarge}`)] };

  const parsed = parsePolicy(text);
  if (!parsed.ok) {
    return { faults: parsed.faults.map((fault) => at(lineOfByte(text, fault.byteOffset ?? 0), fault.message)) };
  }
  const { effect, conditions } = parsed.value;
  const tooDeep = policyTooDeep(conditions);
  if (tooDeep !== undefined) return { faults: [at(1, `this policy ${tooDeep}`)] };

  // Cedar gives null for an annotation without a value, whatever its type says.
  const given = new Map<string, string | null>(Object.entries(parsed.value.annotations ?? {}));
  const annotations = Object.fromEntries([...given].map(([name, value]) => [name, value ?? '']));
  const faults = annotationFaults(effect, annotations).map(({ annotation, message }) =>
    at(annotationLine(text, annotation), message),
  );
  const id = given.get('id');
  if (id === undefined) faults.push(at(1, 'this policy has no @id'));
  return faults.length > 0 || typeof id !== 'string'
    ? { faults }
    : { policy: { id, file, line, text, annotations }, faults };
}

function annotationLine(text: string, annotation: string): number {
  return lineOf(text, Math.max(0, blank(text).search(new RegExp(`@\\s*${annotation}\\b`))));
}
