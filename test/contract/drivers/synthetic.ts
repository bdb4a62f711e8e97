import { randomUUID } from 'node:crypto';
import { hangs, refuses } from '../../support/synthetic/faults.ts';
import { syntheticProvider } from '../../support/synthetic/provider.ts';
import { type Fault, type Kind, type Operation, SyntheticTarget } from '../../support/synthetic/target.ts';
import type { Driver, Held } from '../provider/index.ts';

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
          // Each call is one request: sent, and answered. After it there is nothing to cut.
          apart: async () => ({
            connection: { system: 'memory' },
            hold: (after) => held(target, after),
            lie: () => {},
            pieces: 0,
            cut: () => {},
            close: async () => {},
          }),
          heal: () => target.faults.clear(),
        },
        rights: {
          lose: async () => all(refuses('denied', 'It is not allowed.')),
          restore: async () => target.faults.clear(),
        },
        // What is there is in memory, and stays: a broker starts anew.
        restart: async () => {},
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
          behind: 'it makes nothing elsewhere',
          'faults.garble': 'the provider is the system: there is no wire between them',
          'faults.lies': 'the provider is the system: there is no wire between them',
        },
      };
    },
  };
}

function held(target: SyntheticTarget, after: number): Held {
  if (after > 1) return { reached: new Promise(() => {}), release: () => {}, answered: Promise.resolve() };
  const hold = target.holds.hold(after === 0 ? 'mint.sent' : 'mint.done');
  let answer = () => {};
  const answered = new Promise<void>((resolve) => {
    answer = resolve;
  });
  const release = () => {
    hold.release();
    // What was held goes on in this very turn.
    setImmediate(answer);
  };
  return { reached: hold.reached, release, answered };
}
