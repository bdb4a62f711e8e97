import { randomUUID } from 'node:crypto';
import { hangs, refuses } from '../../support/synthetic/faults.ts';
import { syntheticProvider } from '../../support/synthetic/provider.ts';
import { type Fault, type Kind, type Operation, SyntheticTarget } from '../../support/synthetic/target.ts';
import type { Driver } from '../provider/index.ts';

const operations: readonly Operation[] = ['guarantee', 'mint', 'fence', 'verify', 'reap', 'list'];

/**
 * The provider of the tests, with a target of that kind in memory: what holds there holds for the suite itself.
 * @param sicken Makes it a sick one, until its first case is over.
 */
export function syntheticDriver(kind: Kind, sicken: (target: SyntheticTarget) => void = () => {}): Driver {
  const target = new SyntheticTarget(kind);
  sicken(target);
  return {
    provider: syntheticProvider(new Map([['memory', target]])),
    start: async () => {
      const all = (fault: Fault): void => operations.forEach((operation) => target.faults.set(operation, fault));
      return {
        connection: { system: 'memory' },
        installation: randomUUID(),
        secrets: {},
        entitlements: [{ name: 'memory/use', config: {} }],
        use: async ({ handle }) => (target.system.accepts(String(handle)) ? 'works' : 'refused'),
        secretsOf: ({ token }) => [String(token)],
        look: async (handle) => (target.system.find(handle) === undefined ? [] : [`the identity ${handle}`]),
        stop: async () => {},
        foreign: async () => {
          const handle = `other-${randomUUID()}`;
          const stranger = { handle, grantId: randomUUID(), installation: randomUUID() };
          target.system.make({ ...stranger, endsAt: Number.POSITIVE_INFINITY }, Number.POSITIVE_INFINITY);
          const { system } = target;
          return { harmed: async () => (system.accepts(handle) ? [] : [`${handle} does not work any more`]) };
        },
        faults: {
          hang: () => all(hangs),
          refuse: () => all(refuses('retryable', 'It refuses connections.')),
          slow: (millis) =>
            all({
              answer: async ({ refs, honest }) => {
                const answer = await honest(refs);
                await new Promise((resolve) => setTimeout(resolve, millis));
                return answer;
              },
            }),
          hold: (after) => target.holds.hold(after === 0 ? 'mint.sent' : 'mint.done'),
          heal: () => target.faults.clear(),
        },
        rights: {
          lose: async () => all(refuses('denied', 'It is not allowed.')),
          restore: async () => target.faults.clear(),
        },
        replace: async () => {
          const before = target.replace();
          return async () => {
            target.system = before;
          };
        },
        clock: { now: () => target.now(), turn: (millis) => target.turn(millis) },
        shortestLifeSeconds: 2,
        without: {
          exceed: 'an identity in memory has no rights',
          open: 'an identity in memory has no sessions',
          restart: 'it is the memory of the test',
          'faults.garble': 'the provider is the system: there is no wire between them',
        },
      };
    },
  };
}
