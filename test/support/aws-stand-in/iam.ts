import { instant, mayDo, refuseMalformed } from './evaluate.ts';
import { denied, Refusal } from './refusal.ts';
import type { Principal, Role, State } from './state.ts';
import type { Answer } from './sts.ts';

const actions: Readonly<
  Record<string, (state: State, role: Role, params: URLSearchParams) => Answer | Promise<Answer>>
> = {
  GetRole: (_state, role) => ({
    Role: {
      Path: '/',
      RoleName: role.name,
      RoleId: role.id,
      Arn: role.arn,
      CreateDate: instant(role.createdAt),
      AssumeRolePolicyDocument: encodeURIComponent(role.trust),
      MaxSessionDuration: role.maxSeconds,
      ...(role.boundary !== undefined && {
        PermissionsBoundary: {
          PermissionsBoundaryType: 'Policy',
          PermissionsBoundaryArn: boundaryArn(role.arn),
        },
      }),
    },
  }),
  async PutRolePolicy(state, role, params) {
    const document = params.get('PolicyDocument') ?? '';
    await refuseMalformed(state, document);
    state.write(role, nameOf(params), document);
    return undefined;
  },
  GetRolePolicy(state, role, params) {
    const document = state.shown(role).get(nameOf(params));
    if (document === undefined) throw noSuchPolicy(params);
    return { RoleName: role.name, PolicyName: nameOf(params), PolicyDocument: encodeURIComponent(document) };
  },
  DeleteRolePolicy(state, role, params) {
    if (role.policies.get(nameOf(params))?.at(-1)?.document === undefined) throw noSuchPolicy(params);
    state.write(role, nameOf(params), undefined);
    return undefined;
  },
  ListRolePolicies(state, role, params) {
    const names = [...state.shown(role).keys()].toSorted((one, other) => (one < other ? -1 : 1));
    const start = Number(params.get('Marker') ?? '0');
    const end = start + Number(params.get('MaxItems') ?? '100');
    const more = end < names.length;
    return { PolicyNames: names.slice(start, end), IsTruncated: String(more), ...(more && { Marker: String(end) }) };
  },
  ListAttachedRolePolicies: () => ({ AttachedPolicies: [], IsTruncated: 'false' }),
};

/** Of the managed policies it knows the boundaries of its roles, each in one version. */
async function answerPolicy(state: State, caller: Principal, action: string, arn: string): Promise<Answer> {
  if (!(await mayDo(state, caller, `iam:${action}`, arn))) throw denied(`iam:${action}`);
  const role = [...state.roles.values()].find((one) => one.boundary !== undefined && boundaryArn(one.arn) === arn);
  if (role?.boundary === undefined) throw new Refusal(404, 'NoSuchEntity', `Policy ${arn} was not found.`);
  if (action === 'GetPolicy') return { Policy: { Arn: arn, DefaultVersionId: 'v1' } };
  return {
    PolicyVersion: { VersionId: 'v1', IsDefaultVersion: 'true', Document: encodeURIComponent(role.boundary) },
  };
}

export async function answerIam(state: State, caller: Principal, params: URLSearchParams): Promise<Answer> {
  const action = params.get('Action') ?? '';
  if (action === 'GetPolicy' || action === 'GetPolicyVersion')
    return await answerPolicy(state, caller, action, params.get('PolicyArn') ?? '');
  const name = params.get('RoleName') ?? '';
  const act = actions[action];
  if (act === undefined) throw new Refusal(400, 'InvalidAction', `Could not find operation ${action}`);
  const arn = `arn:aws:iam::${state.id}:role/${name}`;
  const boundary = state.roles.get(name)?.boundary;
  const context = { ...(boundary !== undefined && { 'iam:PermissionsBoundary': boundaryArn(arn) }) };
  if (!(await mayDo(state, caller, `iam:${action}`, arn, context))) throw denied(`iam:${action}`);
  return await act(state, state.roleCalled(name), params);
}

function boundaryArn(role: string): string {
  return `${role.replace(':role/', ':policy/')}-boundary`;
}

function nameOf(params: URLSearchParams): string {
  const name = params.get('PolicyName') ?? '';
  if (/^[\w+=,.@-]{1,128}$/.test(name)) return name;
  throw new Refusal(400, 'ValidationError', `Value '${name}' at 'policyName' failed to satisfy constraint`);
}

function noSuchPolicy(params: URLSearchParams): Refusal {
  return new Refusal(404, 'NoSuchEntity', `The role policy with name ${nameOf(params)} cannot be found.`);
}
