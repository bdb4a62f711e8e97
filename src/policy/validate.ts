import { isDeepStrictEqual } from 'node:util';
import type { PolicySet } from '../catalog/types.ts';
import { type CedarFault, parsePolicy, resolveSchema, validatePolicies } from './cedar.ts';
import { blank, cedarLimits, lineOf, lineOfByte, schemaTooLarge } from './cedar-text.ts';
import { mayflySchema, ownNamespace } from './mayfly-schema.ts';
import { contextFaults } from './evaluation.ts';
import { nameFaults, type Vocabulary } from './names.ts';
import type { PolicyFault } from './policy-file.ts';
import { shapesOf } from './shapes.ts';

/** Where the catalog keeps its own part of the schema. */
export const schemaFile = 'policies/schema.cedarschema';

/** The whole schema: the catalog's own types first, so that Cedar's offsets are those of its file. */
export function fullSchema(own: string): string {
  return `${own}\n${mayflySchema}`;
}

/** The policies as Cedar takes them: by `@id`, which Cedar itself would ignore. */
export function policyTexts(policySet: PolicySet): Readonly<Record<string, string>> {
  return Object.fromEntries(policySet.policies.map(({ id, text }) => [id, text]));
}

/** What is wrong with the catalog's own part of the schema. */
export function schemaFaults(own: string): readonly PolicyFault[] {
  const at = (line: number, message: string): PolicyFault => ({ file: schemaFile, line, message });
  const tooLarge = schemaTooLarge(own);
  if (tooLarge !== undefined) return [at(1, `the schema ${tooLarge}`)];

  const bare = blank(own);
  const taken = new RegExp(`\\bnamespace\\s+(${ownNamespace}(\\s*::\\s*\\w+)*)\\s*\\{`, 'g');
  const redefined = [...bare.matchAll(taken)];
  if (redefined.length > 0) {
    return redefined.map((match) =>
      at(lineOf(own, match.index), `the namespace ${match[1]} is the broker's own and can not be defined here`),
    );
  }
  const resolved = resolveSchema(fullSchema(own));
  if (!resolved.ok) return resolved.faults.map((fault) => at(schemaLine(own, fault), fault.message));
  const [, meant] = /"(__entity|__extn|__expr)":/.exec(JSON.stringify([...resolved.value])) ?? [];
  if (meant !== undefined)
    return [
      at(lineOf(own, own.indexOf(meant)), `nothing can be called ${meant}: in values that is a word of Cedar's own`),
    ];
  const alone = resolveSchema(mayflySchema);
  const same =
    alone.ok &&
    isDeepStrictEqual(resolved.value.get(ownNamespace), alone.value.get(ownNamespace)) &&
    ![...resolved.value.keys()].some((name) => name.startsWith(`${ownNamespace}::`));
  // `entity String;` outside a namespace would give another meaning to the word in ours.
  if (!same) return [at(1, `a type here changes what the broker's own types mean: put it into a namespace`)];
  // Resolving lets pass what validating refuses, such as a bare `entity Task;` that shadows ours.
  return validatePolicies(fullSchema(own), {}).map((fault) => at(schemaLine(own, fault), fault.message));
}

/**
 * Everything that is wrong with a policy set: ids, schema, strict types, and (where a vocabulary is given) names
 * that the catalog does not have.
 */
export function policySetFaults(policySet: PolicySet, vocabulary?: Vocabulary): readonly PolicyFault[] {
  const repeated = repeatedIds(policySet);
  const schema = schemaFaults(policySet.schema);
  if (policySet.policies.length > cedarLimits.policies) {
    return [{ file: 'policies', line: 1, message: `there are more than ${cedarLimits.policies} policies` }];
  }
  const names = vocabulary === undefined ? [] : policySet.policies.flatMap((policy) => namesIn(policy, vocabulary));
  if (repeated.length > 0 || schema.length > 0) return [...repeated, ...schema, ...names];
  const types = validatePolicies(fullSchema(policySet.schema), policyTexts(policySet));
  return [...types.map((fault) => placed(policySet, fault)), ...names];
}

/** Members of the context of the catalog's own actions that nobody would ever fill: what is asked by them would always be denied. */
export function unfilledContext({ schema }: PolicySet): readonly PolicyFault[] {
  const shapes = shapesOf(fullSchema(schema));
  return contextFaults(shapes ?? { entities: new Map(), actions: new Map() }).map(({ action, member }) => ({
    file: schemaFile,
    line: lineOf(schema, Math.max(0, schema.search(new RegExp(`\\b${member}\\b`)))),
    message: `${action}: context.${member} is filled by nobody, or not with that type`,
  }));
}

function repeatedIds({ policies }: PolicySet): readonly PolicyFault[] {
  return policies.flatMap((policy, index) => {
    const first = policies.findIndex(({ id }) => id === policy.id);
    const other = policies[first];
    return other === undefined || first === index
      ? []
      : [
          {
            file: policy.file,
            line: policy.line,
            message: `@id("${policy.id}") stands at ${other.file}:${other.line} already`,
          },
        ];
  });
}

function namesIn(policy: PolicySet['policies'][number], vocabulary: Vocabulary): readonly PolicyFault[] {
  const parsed = parsePolicy(policy.text);
  if (!parsed.ok) return [];
  return nameFaults(parsed.value, vocabulary).map(({ literal, message }) => {
    const offset = Math.max(0, policy.text.indexOf(JSON.stringify(literal)));
    return {
      file: policy.file,
      line: policy.line + lineOf(policy.text, offset) - 1,
      message: `${policy.id}: ${message}`,
    };
  });
}

function placed({ policies }: PolicySet, fault: CedarFault): PolicyFault {
  const policy = policies.find(({ id }) => id === fault.policyId);
  if (policy === undefined) return { file: 'policies', line: 1, message: fault.message };
  const within = lineOfByte(policy.text, fault.byteOffset ?? 0);
  return { file: policy.file, line: policy.line + within - 1, message: `${policy.id}: ${fault.message}` };
}

function schemaLine(own: string, fault: CedarFault): number {
  const lines = own.split('\n').length;
  return Math.min(lines, lineOfByte(fullSchema(own), fault.byteOffset ?? 0));
}
