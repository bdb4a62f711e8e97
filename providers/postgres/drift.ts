import { z } from 'zod';
import type { Drift, DriftCode } from '../../src/provider.ts';
import { type Declared, rightSchema, sayRight, some } from './rights.ts';

const countedSchema = z.object({ count: z.int(), some: z.array(z.string()) });

/** A role as `mayfly.inspect` tells it. */
export const roleSchema = z.object({
  name: z.string(),
  marked: z.boolean(),
  can_login: z.boolean(),
  attributes: z.array(z.string()),
  password: z.enum(['same', 'changed', 'none', 'unknown']),
  expiry: z.enum(['same', 'later', 'earlier', 'none', 'unknown']),
  connection_limit: z.int(),
  connection_limit_granted: z.int().nullable(),
  memberships: z.array(
    // The last two are null before PostgreSQL 16, which has no such options.
    z.object({
      role: z.string(),
      admin: z.boolean(),
      inherit: z.boolean().nullable(),
      set: z.boolean().nullable(),
    }),
  ),
  members: z.array(z.string()),
  settings: z.array(z.object({ name: z.string(), own: z.boolean(), lost: z.boolean() })),
  rights: countedSchema,
  default_privileges: countedSchema,
  policies: countedSchema,
  owned: countedSchema,
});
type Role = z.infer<typeof roleSchema>;

/** A template as `mayfly.inspect` tells it. */
export const templateSchema = z.object({
  exists: z.boolean(),
  attributes: z.array(z.string()),
  member_of: z.array(z.string()),
  owned: countedSchema,
  rights: z.array(rightSchema),
  public: z.array(rightSchema),
});
type Template = z.infer<typeof templateSchema>;

/** What is not as `mint` made it. */
export function roleDrift(handle: string, template: string, registered: boolean, role: Role): readonly Drift[] {
  const drift: Drift[] = [];
  const note = (when: boolean, what: DriftCode, says: () => string): void => {
    if (when) drift.push({ what, says: says() });
  };
  const counted = (what: DriftCode, { count, some: few }: z.infer<typeof countedSchema>, verb: string): void =>
    note(count > 0, what, () => {
      const more = count > few.length ? ` and ${count - few.length} more` : '';
      return `the role ${verb} ${few.join(', ')}${more}`;
    });

  note(!registered, 'unregistered', () => 'the registry in the target does not know it: was it restored?');
  note(role.name !== handle, 'renamed', () => `the role is called ${role.name} now`);
  note(!role.marked, 'unmarked', () => 'the comment that marks the role as ours is gone or changed');
  note(!role.can_login, 'login', () => 'the role can no longer log in');
  note(role.attributes.length > 0, 'attributes', () => `the role is ${role.attributes.join(', ')}`);
  note(role.password === 'changed', 'password', () => 'the role has another password than it was minted with');
  note(role.password === 'none', 'password', () => 'the role has no password');
  note(role.expiry === 'none', 'expiry', () => 'the role is valid for ever');
  note(role.expiry === 'later', 'expiry', () => 'the role is valid for longer than was granted');
  note(role.expiry === 'earlier', 'expiry', () => 'the role is valid for less than was granted');
  note(
    role.connection_limit_granted !== null && role.connection_limit !== role.connection_limit_granted,
    'connection_limit',
    () =>
      `the role may hold ${role.connection_limit} connections (-1: any number), not ${role.connection_limit_granted}`,
  );
  const wrong = memberships(template, role);
  note(wrong.length > 0, 'memberships', () => `the role ${some(wrong)}`);
  note(role.members.length > 0, 'members', () => `others are members of the role: ${some(role.members)}`);
  const own = role.settings.filter((setting) => setting.own).map(({ name }) => name);
  note(own.length > 0, 'settings_own', () => `set on the role, as it can by itself: ${some(own)}`);
  const others = role.settings
    .filter((setting) => !setting.own)
    .map(({ name, lost }) =>
      lost ? `${name} is no longer set as the broker set it` : `${name} was set by an administrator`,
    );
  note(others.length > 0, 'settings', () => some(others));
  counted('rights', role.rights, 'itself has rights on');
  counted('default_privileges', role.default_privileges, 'stands in');
  counted('policies', role.policies, 'is named by');
  counted('owned', role.owned, 'owns');
  return drift;
}

/** Exactly one: the template's, that neither gives it on nor, where that can be refused, lets the role become it. */
function memberships(template: string, { memberships: all }: Role): readonly string[] {
  const right = all.filter(
    (each) => each.role === template && !each.admin && each.inherit !== false && each.set !== true,
  );
  return [
    ...(right.length === 0 ? [`is not a member of ${template} as it was granted`] : []),
    ...(right.length > 1 ? [`is a member of ${template} ${right.length} times`] : []),
    ...all
      .filter((each) => !right.includes(each))
      .map(({ role, admin, inherit, set }) => {
        const options = [
          admin ? 'ADMIN' : '',
          inherit === false ? 'INHERIT FALSE' : '',
          set === true ? 'SET TRUE' : '',
        ];
        const how = options.filter((option) => option !== '').join(', ');
        return `is a member of ${role}${how === '' ? '' : ` with ${how}`}`;
      }),
  ];
}

/** What is not as `prepare` left it, or as the entitlement now declares it. */
export function templateDrift(name: string, template: Template | undefined, declared: Declared): readonly Drift[] {
  if (template === undefined || !template.exists) {
    return [{ what: 'template', says: `the template ${name} is not that of the grant, or does not exist` }];
  }
  const drift: Drift[] = [];
  const faults = [
    ...(template.attributes.length > 0 ? [`is ${template.attributes.join(', ')}`] : []),
    ...(template.member_of.length > 0 ? [`is a member of ${some(template.member_of)}`] : []),
    ...(template.owned.count > 0 ? [`owns ${template.owned.some.join(', ')}`] : []),
  ];
  if (faults.length > 0) drift.push({ what: 'template', says: `the template ${name} ${faults.join('; ')}` });
  const wider = template.rights.filter((right) => right.grantable || !declared.has(right)).map(sayRight);
  if (wider.length > 0) drift.push({ what: 'template_wider', says: `the template ${name} has also ${some(wider)}` });
  const missing = declared.missing(template.rights);
  if (missing.length > 0)
    drift.push({ what: 'template_narrower', says: `the template ${name} lacks ${some(missing)}` });
  const everybody = template.public.filter((right) => !declared.has(right)).map(sayRight);
  if (everybody.length > 0) drift.push({ what: 'public', says: `PUBLIC has ${some(everybody)}` });
  return drift;
}
