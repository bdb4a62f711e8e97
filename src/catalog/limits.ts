import { z } from 'zod';
import type { Fault } from './faults.ts';
import { entitlementName, name, text, uniqueList } from './names.ts';
import { type EntitlementDefinition, type Limits, sensitivities } from './types.ts';
import { type Item, readList, schemaFaults, type YamlFile } from './yaml.ts';

/** Which entitlements: all that is said must fit. */
const selectorSchema = z
  .strictObject({
    entitlements: uniqueList(entitlementName).optional(),
    targets: uniqueList(name).optional(),
    actions: uniqueList(name).optional(),
    data_classes: uniqueList(name).optional(),
    sensitivities: uniqueList(z.enum(sensitivities, `must be one of ${sensitivities.join(', ')}`)).optional(),
    sink: z.boolean().optional(),
  })
  .refine((selector) => Object.keys(selector).length > 0, 'must say which entitlements');
type Selector = z.infer<typeof selectorSchema>;

const reason = text(300).optional();

const toxicSchema = z.strictObject({ name, one: selectorSchema, other: selectorSchema, reason });

const atMostSchema = z.strictObject({
  name,
  grants: z.int().min(1).max(1_000_000),
  per: z.enum(['tree', 'workload', 'target'], 'must be tree, workload or target'),
  of: selectorSchema.optional(),
  reason,
});

const approvalSchema = z.strictObject({ name, of: selectorSchema, group: name });

const fileSchema = z.strictObject({
  toxic: z.unknown().optional(),
  at_most: z.unknown().optional(),
  approvals: z.unknown().optional(),
});

/** Reads `limits.yaml`. Each selector is told as the entitlements that it fits: one that fits none limits nothing and is a fault. */
export function readLimits(
  file: YamlFile,
  entitlements: ReadonlyMap<string, EntitlementDefinition>,
  faults: Fault[],
): Limits {
  const none: Limits = { toxic: [], atMost: [] };
  if (file.value === null) return none;
  const whole = fileSchema.safeParse(file.value);
  if (!whole.success) {
    faults.push(...schemaFaults(file, [], whole.error.issues));
    return none;
  }
  const named = (item: Item<unknown>, place: string, selector: Selector): readonly string[] => {
    const all = [...entitlements.values()];
    for (const value of misspelt(all, selector)) faults.push(item.fault([place], `no entitlement has ${value}`));
    const fitting = all.filter((one) => fits(one, selector)).map((one) => one.name);
    if (fitting.length === 0) faults.push(item.fault([place], 'fits no entitlement'));
    return fitting;
  };
  const { toxic: saidToxic, at_most: saidAtMost, approvals: saidApprovals } = whole.data;
  const toxic = saidToxic === undefined ? [] : readList(file, ['toxic'], toxicSchema, faults);
  const atMost = saidAtMost === undefined ? [] : readList(file, ['at_most'], atMostSchema, faults);
  const approvals = saidApprovals === undefined ? [] : readList(file, ['approvals'], approvalSchema, faults);
  const names = new Set<string>();
  for (const item of [...toxic, ...atMost, ...approvals]) {
    if (names.has(item.value.name)) faults.push(item.fault(['name'], `${item.value.name} stands here twice`));
    names.add(item.value.name);
  }
  return {
    toxic: toxic.map((item) => {
      const { value } = item;
      const [one, other] = [named(item, 'one', value.one), named(item, 'other', value.other)];
      const both = one.find((entitlement) => other.includes(entitlement));
      if (both !== undefined) faults.push(item.fault(['other'], `${both} fits both sides`));
      return { name: value.name, one, other, reason: value.reason ?? null };
    }),
    atMost: atMost.map((item) => {
      const { name: called, grants, per, of, reason: why = null } = item.value;
      return { name: called, grants, per, of: of === undefined ? null : named(item, 'of', of), reason: why };
    }),
    ...(saidApprovals === undefined
      ? {}
      : {
          approvals: approvals.map((item) => {
            const { name: called, group, of } = item.value;
            return { name: called, group, of: named(item, 'of', of) };
          }),
        }),
  };
}

type Said = readonly [values: readonly string[], of: (one: EntitlementDefinition) => readonly string[]];

/** The lists of a selector, and what an entitlement has of each. */
function said(selector: Selector): readonly Said[] {
  const lists: readonly [readonly string[] | undefined, Said[1]][] = [
    [selector.entitlements, (one) => [one.name]],
    [selector.targets, (one) => [one.target]],
    [selector.actions, (one) => one.actions],
    [selector.data_classes, (one) => one.dataClasses],
    [selector.sensitivities, (one) => [one.sensitivity]],
  ];
  return lists.flatMap(([values, of]): readonly Said[] => (values === undefined ? [] : [[values, of]]));
}

function fits(entitlement: EntitlementDefinition, selector: Selector): boolean {
  const { sink } = selector;
  return (
    said(selector).every(([values, of]) => of(entitlement).some((value) => values.includes(value))) &&
    (sink === undefined || sink === entitlement.sink)
  );
}

/** Names that no entitlement bears: they would limit nothing. */
function misspelt(entitlements: readonly EntitlementDefinition[], selector: Selector): readonly string[] {
  return said(selector).flatMap(([values, of]) =>
    values.filter((value) => !entitlements.some((one) => of(one).includes(value))),
  );
}
