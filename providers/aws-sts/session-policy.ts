import { ProviderError } from '../../src/provider.ts';
import type { Statement } from './schema.ts';

/** Characters of a session policy that AWS takes, inline and managed together. What tags and policy are packed to is told at the mint. */
const mostCharacters = 2_048;
/** `${param}`. IAM's own variables have a colon or one sign in the braces. */
const placeholder = /\$\{([a-z][a-z0-9_]*)\}/g;
/** A session that could reach for another, or for the fence, would outlive what it was given. What STS adds one day is denied with the rest. */
export const neverInSession: Statement = {
  Effect: 'Deny',
  Action: ['iam:*', 'sts:*', 'signin:*'],
  Resource: '*',
};

type Value = string | number | boolean;

/** The names of all params that the texts of a value hold. */
export function placeholdersIn(value: unknown): readonly string[] {
  return [...new Set([...(JSON.stringify(value) ?? '').matchAll(placeholder)].map(([, name]) => name ?? ''))];
}

/** The names of the params that some statement binds. */
export function boundBy(statements: readonly Statement[]): readonly string[] {
  return placeholdersIn(statements);
}

/**
 * The statements with the values of the params, then what is never allowed, then the deadline: from that second on the session may do
 * nothing, on AWS's own clock. Minified JSON.
 * @throws ProviderError `misconfigured` for a param without a value, a value that nothing binds, or one that no ARN can hold.
 */
export function sessionPolicy(
  statements: readonly Statement[],
  params: Readonly<Record<string, Value>>,
  deadline: Date,
): string {
  const bound = boundBy(statements);
  const unbound = Object.keys(params).filter((name) => !bound.includes(name));
  const missing = bound.filter((name) => !Object.hasOwn(params, name));
  // To ignore a param would be to grant more than was decided.
  if (unbound.length > 0)
    throw new ProviderError('misconfigured', `no statement binds the params ${unbound.join(', ')}`);
  if (missing.length > 0) throw new ProviderError('misconfigured', `the params ${missing.join(', ')} have no value`);
  const policy = compose(statements, (name) => literal(name, params[name] ?? ''), deadline);
  if (policy.length > mostCharacters)
    throw new ProviderError(
      'misconfigured',
      `the session policy has ${policy.length} characters with these params, and AWS takes ${mostCharacters}`,
    );
  return policy;
}

/** The size of the policy with those texts for its params, as they would stand there. */
export function sizeOf(statements: readonly Statement[], value: (param: string) => string) {
  return { characters: compose(statements, value, new Date(0)).length, most: mostCharacters };
}

function compose(statements: readonly Statement[], value: (param: string) => string, deadline: Date): string {
  const own = statements.map((statement) => filled(statement, value));
  return JSON.stringify({ Version: '2012-10-17', Statement: [...own, neverInSession, powerlessFrom(deadline)] });
}

/** The statement with those texts for its params. */
export function filled(statement: Statement, value: (param: string) => string): Statement {
  const { Resource, Condition } = statement;
  const text = (one: string) => one.replace(placeholder, (_, name: string) => value(name));
  const texts = (one: string | string[]) => (typeof one === 'string' ? text(one) : one.map(text));
  const one = (of: string | number | boolean | string[]) =>
    typeof of === 'string' || Array.isArray(of) ? texts(of) : of;
  return {
    ...statement,
    ...(Resource !== undefined && { Resource: texts(Resource) }),
    ...(Condition !== undefined && { Condition: mapped(Condition, (keys) => mapped(keys, one)) }),
  };
}

function mapped<V, W>(of: Readonly<Record<string, V>>, to: (value: V) => W): Record<string, W> {
  return Object.fromEntries(Object.entries(of).map(([key, value]) => [key, to(value)] as const));
}

/** The deny that ends a session natively. To the second, and never later than it is. */
export function powerlessFrom(deadline: Date): Statement {
  return {
    Effect: 'Deny',
    Action: '*',
    Resource: '*',
    Condition: { DateGreaterThanEquals: { 'aws:CurrentTime': toSecond(deadline) } },
  };
}

function toSecond(time: Date): string {
  return time.toISOString().replace(/\.\d+Z$/, 'Z');
}

/** As IAM matches it literally. @throws ProviderError */
function literal(name: string, value: Value): string {
  const text = String(value);
  if (text === '' || /[^\x20-\x7e]|[:"\\]/.test(text))
    throw new ProviderError(
      'misconfigured',
      `the value of ${name} can not stand in a policy: it is empty, or has a colon, a quote, a backslash or what is not printable ASCII`,
    );
  return asWritten(text);
}

/** Its wildcards and variables as variables of their own: four characters each. */
export function asWritten(text: string): string {
  return text.replace(/[*?$]/g, (sign) => `\${${sign}}`);
}
