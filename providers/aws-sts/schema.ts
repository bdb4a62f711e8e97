import { isIPv4 } from 'node:net';
import { z } from 'zod';
import { placeholdersIn, sizeOf } from './session-policy.ts';

const reference = z.string().regex(/^(env:[A-Z][A-Z0-9_]*|file:\/?[^\0]+)$/, 'must be env:NAME or file:path');
const roleArn = z
  .string()
  .regex(
    /^arn:aws[a-z-]*:iam::\d{12}:role\/[\w+=,.@/-]{1,576}$/,
    'must be the ARN of a role, arn:aws:iam::<account>:role/<name>',
  );
const roleId = z.string().regex(/^AROA[A-Z0-9]{12,28}$/, 'must be the unique id of a role, AROA…');
const bucket = z.string().regex(/^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$/, 'must be the name of a bucket');

/** Where the SDK would not find it by itself: a VPC endpoint, another partition, a test server. */
const endpoint = z
  .url()
  .refine(
    (url) => url.startsWith('https:') || isLoopback(new URL(url).hostname),
    'must be https, or on the loopback interface',
  );

const clone = z.strictObject({ arn: roleArn, unique_id: roleId.optional() });

const role = z.strictObject({
  arn: roleArn,
  /** Another role of that name, made anew, is not this one. */
  unique_id: roleId.optional(),
  /** Roles of the same rights. Grants are spread over all of them, and with them the entries of the fence. */
  clones: z.array(clone).max(16).default([]),
});

/** What a probe does, and the role allows: it shows by effect that a fence is in force. */
const probe = z.discriminatedUnion('action', [
  /** Of the region's data plane, where agents work: what it refuses there it refuses them. */
  z.strictObject({ action: z.literal('s3:ListBucket'), bucket }),
  /** Of the role itself. IAM may know of its own writes before other services do. */
  z.strictObject({ action: z.literal('iam:GetRole') }),
]);

export const targetSchema = z
  .strictObject({
    account_id: z.string().regex(/^\d{12}$/, 'must be the twelve digits of the account, in quotes'),
    region: z.string().regex(/^[a-z]{2}(-[a-z]+)+-\d$/, 'must be the name of a region, e.g. eu-central-1'),
    roles: z.array(role).min(1).max(50),
    /** The broker's own keys: of a role session, never of an IAM user. Default: what the SDK finds. */
    broker: z
      .strictObject({ access_key_id: reference, secret_access_key: reference, session_token: reference.optional() })
      .optional(),
    /** The role that the broker runs as: what `target prepare` prints trusts it. */
    broker_role: roleArn.optional(),
    endpoints: z
      .strictObject({ sts: endpoint.optional(), iam: endpoint.optional(), s3: endpoint.optional() })
      .default({}),
    /** A session of a role that another role assumed lives an hour at most: more is a fault, and has no effect. */
    max_session_seconds: z.int().min(900).max(43_200).default(3_600),
    /** How long an early end is given to be in force everywhere. */
    propagation_seconds: z.int().min(5).max(600).default(60),
    /** `none`: the broker may not write to the roles. Then a credential ends at its deadline, and not before. */
    fence: z.enum(['inline-policy', 'none']).default('inline-policy'),
    /** Characters of all inline policies of a role together: AWS's quota. */
    policy_characters: z.int().min(1_000).max(10_240).default(10_240),
    probe: probe.default({ action: 'iam:GetRole' }),
    /** Every role must have this one. */
    permissions_boundary: z
      .string()
      .regex(/^arn:aws[a-z-]*:iam::(\d{12}|aws):policy\/[\w+=,.@/-]+$/, 'must be the ARN of a policy')
      .optional(),
  })
  .superRefine((target, context) => {
    const arns = allRoles(target).map(({ arn }) => arn);
    if (new Set(arns).size < arns.length)
      context.addIssue({ code: 'custom', path: ['roles'], message: 'names a role twice' });
    for (const [index, arn] of arns.entries())
      if (arn.split(':')[4] !== target.account_id)
        context.addIssue({ code: 'custom', path: ['roles', index], message: 'is of another account than account_id' });
  });

export type AwsTarget = z.infer<typeof targetSchema>;
export type ListedRole = z.infer<typeof clone>;

/** Every role that may be assumed, the clones among them. */
export function allRoles(target: { readonly roles: readonly z.infer<typeof role>[] }): readonly ListedRole[] {
  return target.roles.flatMap(({ clones, ...one }) => [one, ...clones]);
}

const texts = z.union([z.string().min(1), z.array(z.string().min(1)).min(1)]);
const conditionValue = z.union([z.string(), z.number(), z.boolean(), z.array(z.string()).min(1)]);

/** One statement of an IAM policy, as AWS writes it. */
const statement = z
  .strictObject({
    Sid: z
      .string()
      .regex(/^[A-Za-z0-9]*$/, 'may hold letters and digits')
      .optional(),
    Effect: z.enum(['Allow', 'Deny']),
    Action: texts.optional(),
    NotAction: texts.optional(),
    Resource: texts.optional(),
    NotResource: texts.optional(),
    Condition: z.record(z.string(), z.record(z.string(), conditionValue)).optional(),
  })
  .superRefine((one, context) => {
    const fault = (path: string, message: string) => context.addIssue({ code: 'custom', path: [path], message });
    if ((one.Action === undefined) === (one.NotAction === undefined))
      fault('Action', 'there must be either Action or NotAction');
    if ((one.Resource === undefined) === (one.NotResource === undefined))
      fault('Resource', 'there must be either Resource or NotResource');
    const elsewhere = { ...one, Resource: undefined, Condition: undefined };
    const keys = Object.entries(one.Condition ?? {}).flatMap(([operator, by]) => [operator, ...Object.keys(by)]);
    if (placeholdersIn([elsewhere, keys]).length > 0)
      fault('Resource', 'a param may stand in values of Resource and Condition, and nowhere else');
    for (const resource of [one.Resource ?? []].flat())
      if (placeholdersIn(resource.split(':').slice(0, 5)).length > 0)
        fault('Resource', 'a param may stand only behind the fifth colon of an ARN');
  });

export type Statement = z.infer<typeof statement>;

/** An entitlement's `provider` section. */
export const entitlementSchema = z
  .strictObject({
    role: roleArn,
    /** What the agent may do, out of what the role may. `${param}` stands for the value of a param of the entitlement. */
    statements: z.array(statement).min(1).max(20),
    /** It is accepted that a session may obtain, by what the statements allow, what does not end with it. The guarantee says so. */
    derives_credentials: z.boolean().default(false),
  })
  .superRefine(({ statements }, context) => {
    if (!statements.some(({ Effect }) => Effect === 'Allow'))
      context.addIssue({ code: 'custom', path: ['statements'], message: 'allow nothing' });
    const { characters, most } = sizeOf(statements, () => '');
    if (characters > most)
      context.addIssue({
        code: 'custom',
        path: ['statements'],
        message: `make a session policy of ${characters} characters, and AWS takes ${most}`,
      });
  });

export type AwsEntitlement = z.infer<typeof entitlementSchema>;

/** The address of this very machine: the only one where a connection without TLS is allowed. */
function isLoopback(address: string): boolean {
  return address === 'localhost' || address === '[::1]' || (isIPv4(address) && address.startsWith('127.'));
}
