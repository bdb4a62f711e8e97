import { runSimulation, type Simulation } from '@cloud-copilot/iam-simulate';
import { Refusal } from './refusal.ts';
import type { Principal, State } from './state.ts';

/** What else than its principal a request's conditions may look at: the keys as policies name them. */
type Context = Readonly<Record<string, string | string[]>>;

/**
 * Whether the account lets that principal do it, by an evaluator that is not ours.
 * @param action With its service.
 * @param resource An ARN, or `*` for an action that has none.
 * @param trust Of the role, for what a trust policy decides.
 */
export async function mayDo(
  state: State,
  principal: Principal,
  action: string,
  resource: string,
  context: Context = {},
  trust?: string,
): Promise<boolean> {
  const now = state.now();
  const common = { 'aws:CurrentTime': instant(now), 'aws:EpochTime': String(Math.floor(now / 1000)) };
  return await allows({
    request: {
      principal: arnOf(state, principal),
      action,
      resource: { resource, accountId: state.id },
      contextVariables: { ...common, 'aws:PrincipalAccount': state.id, ...contextOf(principal), ...context },
    },
    ...policiesOf(state, principal),
    ...(trust !== undefined && { resourcePolicy: JSON.parse(trust) }),
    serviceControlPolicies: [],
    resourceControlPolicies: [],
  });
}

/** Throws where it cannot tell: a test that asks for what the evaluator does not know is wrong. */
async function allows(simulation: Simulation): Promise<boolean> {
  const result = await runSimulation(simulation, {});
  if (result.resultType === 'error') throw new Error(`the evaluator: ${JSON.stringify(result.errors)}`);
  return result.overallResult === 'Allowed';
}

/** Throws `MalformedPolicyDocument` for one that is no identity policy. */
export async function refuseMalformed(state: State, document: string): Promise<void> {
  let policy: unknown;
  try {
    policy = JSON.parse(document);
  } catch {
    throw new Refusal(400, 'MalformedPolicyDocument', 'Syntax errors in policy.');
  }
  const principal = `arn:aws:iam::${state.id}:user/anybody`;
  const result = await runSimulation(
    {
      request: {
        principal,
        action: 'sts:GetCallerIdentity',
        resource: { resource: '*', accountId: state.id },
        contextVariables: {},
      },
      identityPolicies: [{ name: 'asked', policy }],
      serviceControlPolicies: [],
      resourceControlPolicies: [],
    },
    {},
  );
  if (result.resultType !== 'error') return;
  throw new Refusal(400, 'MalformedPolicyDocument', JSON.stringify(result.errors.identityPolicyErrors?.['asked']));
}

export function arnOf(state: State, principal: Principal): string {
  if (principal.kind === 'user') return principal.arn;
  return `arn:aws:sts::${state.id}:assumed-role/${principal.role.name}/${principal.name}`;
}

/** `aws:userid`. */
export function userIdOf(principal: Principal): string {
  return principal.kind === 'user' ? principal.id : `${principal.role.id}:${principal.name}`;
}

/** As AWS writes times in conditions: whole seconds. */
export function instant(ms: number): string {
  return new Date(Math.floor(ms / 1000) * 1000).toISOString().replace('.000Z', 'Z');
}

function contextOf(principal: Principal): Context {
  const userid = { 'aws:userid': userIdOf(principal) };
  if (principal.kind === 'user') {
    return {
      ...userid,
      'aws:username': principal.name,
      'aws:PrincipalArn': principal.arn,
      'aws:PrincipalType': 'User',
    };
  }
  return {
    ...userid,
    'aws:PrincipalArn': principal.role.arn,
    'aws:PrincipalType': 'AssumedRole',
    'aws:TokenIssueTime': instant(principal.issuedAt),
    ...(principal.sourceIdentity !== undefined && { 'aws:SourceIdentity': principal.sourceIdentity }),
    ...Object.fromEntries([...principal.tags].map(([key, value]) => [`aws:PrincipalTag/${key}`, value])),
  };
}

function policiesOf(
  state: State,
  principal: Principal,
): Pick<Simulation, 'identityPolicies' | 'permissionBoundaryPolicies' | 'sessionPolicy'> {
  if (principal.kind === 'user') return { identityPolicies: [{ name: 'own', policy: JSON.parse(principal.policy) }] };
  const { role, policy } = principal;
  const inline = [...state.deciding(role)].map(([name, document]) => ({ name, policy: JSON.parse(document) }));
  return {
    identityPolicies: inline,
    ...(policy !== undefined && { sessionPolicy: JSON.parse(policy) }),
    ...(role.boundary !== undefined && {
      permissionBoundaryPolicies: [{ name: 'boundary', policy: JSON.parse(role.boundary) }],
    }),
  };
}
