import { runSimulation } from '@cloud-copilot/iam-simulate';

/** A session as a policy sees it. Times in milliseconds on AWS's clock. */
export interface JudgedSession {
  readonly handle: string;
  readonly issuedAt: number;
  /** What its tag says of when its grant was minted, in seconds. */
  readonly issued: number;
  /** In its session policy, whole seconds: from then on it is powerless. */
  readonly deadline: number;
}

type Condition = Readonly<Record<string, Readonly<Record<string, string | readonly string[]>>>>;
type Denies = (session: JudgedSession) => boolean;

const cache = new Map<string, Denies>();

/**
 * Whether that document denies it: read as what it is, JSON, knowing nothing of who wrote it. Every session is asked about at every
 * change, so this is quick; samples of the same questions go to {@link mayStill}, which is not ours.
 */
export function denies(document: string, session: JudgedSession): boolean {
  let compiled = cache.get(document);
  if (compiled === undefined) {
    compiled = compile(document);
    if (cache.size > 100) cache.clear();
    cache.set(document, compiled);
  }
  return compiled(session);
}

function compile(document: string): Denies {
  const { Statement }: { Statement: readonly { Effect: string; Condition: Condition }[] } = JSON.parse(document);
  const statements = Statement.map(({ Effect, Condition: condition }) => {
    if (Effect !== 'Deny') throw new Error(`a fence that allows: ${document}`);
    const tests = Object.entries(condition).flatMap(([operator, by]) =>
      Object.entries(by).map(([key, values]) => test(operator, key, [values].flat())),
    );
    return (session: JudgedSession) => tests.every((holds) => holds(session));
  });
  return (session) => statements.some((matches) => matches(session));
}

function test(operator: string, key: string, values: readonly string[]): Denies {
  if (key === 'aws:PrincipalTag/mayfly-issued' && operator === 'NumericLessThanIfExists') {
    const cut = Number(values[0]);
    return ({ issued }) => issued < cut;
  }
  const isHandle = key === 'aws:SourceIdentity' || key === 'aws:PrincipalTag/mayfly-grant';
  const listed = new Set(values);
  if (isHandle && operator === 'StringEquals') return ({ handle }) => listed.has(handle);
  if (isHandle && operator === 'StringNotEquals') return ({ handle }) => !listed.has(handle);
  throw new Error(`nobody said what ${operator} ${key} means`);
}

const account = '123456789012';
const action = 's3:GetObject';
const resource = 'arn:aws:s3:::reports/march';

/** Whether the session may still do what its role allows, by the independent evaluator. @param fences What decides at the role. */
export async function mayStill(
  fences: readonly string[],
  { handle, issuedAt, issued, deadline }: JudgedSession,
  now: number,
): Promise<boolean> {
  const allow = { Effect: 'Allow', Action: action, Resource: resource };
  const own = { Version: '2012-10-17', Statement: [allow] };
  const bounded = {
    Action: '*',
    Resource: '*',
    Condition: { DateGreaterThanEquals: { 'aws:CurrentTime': text(deadline) } },
  };
  const result = await runSimulation(
    {
      request: {
        principal: `arn:aws:sts::${account}:assumed-role/agent/${handle}`,
        action,
        resource: { resource, accountId: account },
        contextVariables: {
          'aws:CurrentTime': text(now),
          'aws:TokenIssueTime': text(issuedAt),
          'aws:SourceIdentity': handle,
          'aws:PrincipalTag/mayfly-grant': handle,
          'aws:PrincipalTag/mayfly-issued': String(issued),
        },
      },
      sessionPolicy: { Version: '2012-10-17', Statement: [allow, { Effect: 'Deny', ...bounded }] },
      identityPolicies: [
        { name: 'own', policy: own },
        ...fences.map((fence, at) => ({ name: `fence-${at}`, policy: JSON.parse(fence) })),
      ],
      serviceControlPolicies: [],
      resourceControlPolicies: [],
    },
    {},
  );
  if (result.resultType === 'error') throw new Error(JSON.stringify(result.errors));
  return result.overallResult === 'Allowed';
}

function text(millis: number): string {
  return new Date(Math.floor(millis / 1000) * 1000).toISOString().replace('.000Z', 'Z');
}
