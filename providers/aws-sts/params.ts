import type { PreparedEntitlement } from '../../src/provider.ts';
import type { AwsEntitlement } from './schema.ts';
import { asWritten, boundBy, sizeOf } from './session-policy.ts';

/** Of a text whose pattern does not say how long it may be. */
const assumedCharacters = 64;

type Declared = NonNullable<PreparedEntitlement['params']>[string];

/** What is wrong with the params of an entitlement, and with the size of its session policy with the longest of their values. */
export function paramFaults({
  config,
  params = {},
}: Omit<PreparedEntitlement<AwsEntitlement>, 'maxTtlSeconds'>): readonly string[] {
  const bound = boundBy(config.statements);
  const unbound = Object.keys(params).filter((name) => !bound.includes(name));
  const undeclared = bound.filter((name) => !Object.hasOwn(params, name));
  const { characters, most } = sizeOf(config.statements, (name) => longest(params[name]));
  return [
    ...unbound.map((name) => `no statement holds \${${name}}: what it allows would be the same for every value`),
    ...undeclared.map((name) => `the statements hold \${${name}}, and the entitlement declares no such param`),
    ...(characters > most
      ? [
          `the session policy may have ${characters} characters with the longest values of its params, and AWS takes ${most}`,
        ]
      : []),
  ];
}

function longest(param: Declared | undefined): string {
  if (param?.enum !== undefined)
    return param.enum
      .map((one) => asWritten(String(one)))
      .reduce((most, one) => (one.length > most.length ? one : most), '');
  if (param?.type === 'boolean') return 'false';
  if (param?.type === 'integer')
    return [param.min, param.max]
      .map((bound) => String(bound ?? Number.MIN_SAFE_INTEGER))
      .reduce((a, b) => (a.length > b.length ? a : b));
  // The usual form: one class of characters, so many times.
  const [, signs, count] = /^\^(\[[^\]]+\])\{(?:\d+,)?(\d+)\}\$$/.exec(param?.pattern ?? '') ?? [];
  if (signs === undefined) return 'x'.repeat(assumedCharacters);
  const sign = ['*', '?', '$'].find((one) => new RegExp(signs).test(one)) ?? 'x';
  return asWritten(sign.repeat(Number(count)));
}
