import { z } from 'zod';
import { shapesOf } from '../policy/shapes.ts';
import { fullSchema, schemaFaults } from '../policy/validate.ts';
import type { Fault } from './faults.ts';
import { name, uniqueList } from './names.ts';
import { workload } from './trust-schema.ts';
import type { ToolGateway } from './types.ts';
import { declaredNames, type Item, readList, type YamlFile } from './yaml.ts';

export const thumbprint = z.string().regex(/^[A-Za-z0-9_-]{43}$/, 'must be a SHA-256 thumbprint (RFC 7638), base64url');
const types = uniqueList(z.string().min(1).max(200));

const gatewaySchema = z
  .strictObject({
    name,
    workloads: uniqueList(workload),
    proof_of_possession: z.enum(['required', 'none'], 'must be `required` or `none`').default('required'),
    keys: uniqueList(thumbprint).default([]),
    scope: z.strictObject({ subjects: types, resources: types, agents: uniqueList(workload).optional() }),
  })
  .superRefine((gateway, context) => {
    const message = keysFault(gateway);
    if (message !== undefined) context.addIssue({ code: 'custom', path: ['keys'], message });
  });

/** Why a party's keys do not go with what it proves, or undefined. */
export function keysFault(party: {
  readonly proof_of_possession: 'required' | 'none';
  readonly keys: readonly string[];
}): string | undefined {
  if (party.proof_of_possession === 'required')
    return party.keys.length > 0 ? undefined : 'must name the keys that it proves, or say `proof_of_possession: none`';
  return party.keys.length === 0 ? undefined : 'are not asked for with `proof_of_possession: none`';
}

/** Types of subjects that are the broker's own. */
const ours: readonly string[] = ['task', 'workload'];

/**
 * Reads `tool_gateways` of `trust.yaml`.
 * @param schema The catalog's own part of the Cedar schema: what a scope names must be there, unless the schema is itself at fault.
 */
export function readToolGateways(file: YamlFile, schema: string, faults: Fault[]): readonly ToolGateway[] {
  const said = z.object({ tool_gateways: z.unknown(), workload_sources: z.unknown() }).partial().safeParse(file.value);
  if (said.data?.tool_gateways === undefined) return [];
  const items = readList(file, ['tool_gateways'], gatewaySchema, faults);
  const sources = declaredNames(said.data.workload_sources);
  const shapes = schemaFaults(schema).length > 0 ? undefined : shapesOf(fullSchema(schema));
  const names = new Set<string>();
  for (const item of items) {
    if (names.has(item.value.name)) faults.push(item.fault(['name'], `the name ${item.value.name} stands here twice`));
    names.add(item.value.name);
    checkWorkloads(item, ['workloads'], item.value.workloads, sources, faults);
    checkWorkloads(item, ['scope', 'agents'], item.value.scope.agents ?? [], sources, faults);
    if (shapes === undefined) continue;
    for (const list of ['subjects', 'resources'] as const) {
      item.value.scope[list].forEach((type, index) => {
        if (!(list === 'subjects' && ours.includes(type)) && !shapes.entities.has(type))
          faults.push(item.fault(['scope', list, index], `the schema has no type ${type}`));
      });
    }
  }
  return items.map(({ value }) => ({
    name: value.name,
    workloads: value.workloads,
    keys: value.proof_of_possession === 'none' ? null : value.keys,
    subjects: value.scope.subjects,
    resources: value.scope.resources,
    agents: value.scope.agents ?? null,
  }));
}

export function checkWorkloads(
  item: Item<unknown>,
  path: readonly string[],
  workloads: readonly string[],
  sources: ReadonlySet<string>,
  faults: Fault[],
): void {
  workloads.forEach((one, index) => {
    const source = one.slice(0, one.indexOf(':'));
    if (!sources.has(source)) faults.push(item.fault([...path, index], `there is no workload source ${source}`));
  });
}
