import { type FieldError, MayflyError } from '../domain/errors.ts';

/** One thing that is wrong in one place of the catalog. Never holds the value found there: it may be a secret. */
export interface Fault {
  /** Path below the catalog folder. */
  readonly file: string;
  /** Counts from 1. */
  readonly line: number;
  /** `$.connection.host`, or empty where the file has no such structure (Cedar). */
  readonly path: string;
  readonly message: string;
}

/** `targets/ledger-db.yaml:4 $.connection.host`: what a person clicks on. */
function faultPlace(fault: Pick<Fault, 'file' | 'line' | 'path'>): string {
  return `${fault.file}:${fault.line}${fault.path === '' ? '' : ` ${fault.path}`}`;
}

/** Faults in the order in which a person reads files, each told once. */
export function fieldErrors(faults: readonly Fault[]): readonly FieldError[] {
  const sorted = [...faults].sort((a, b) => (a.file === b.file ? a.line - b.line : a.file < b.file ? -1 : 1));
  const told = new Map<string, FieldError>();
  for (const fault of sorted) {
    const error = { path: faultPlace(fault), message: fault.message };
    told.set(`${error.path}\n${error.message}`, error);
  }
  return [...told.values()];
}

/** `catalog_invalid` with every fault at once. */
export function catalogInvalid(faults: readonly Fault[]): MayflyError {
  const errors = fieldErrors(faults);
  const count = errors.length === 1 ? 'one fault' : `${errors.length} faults`;
  return new MayflyError('catalog_invalid', `The catalog has ${count}.`, { errors });
}

/** `$.connection.hosts[0]`, from the path that zod reports. */
export function jsonPath(path: readonly PropertyKey[]): string {
  return path.reduce<string>((text, key) => {
    if (typeof key === 'number') return `${text}[${key}]`;
    const name = String(key);
    return /^[A-Za-z_][A-Za-z0-9_-]*$/.test(name) ? `${text}.${name}` : `${text}[${JSON.stringify(name)}]`;
  }, '$');
}
