import { randomUUID } from 'node:crypto';
import { describe, expect, test } from 'vitest';
import { z } from 'zod';
import { ProviderError, type Ref } from '../../src/provider.ts';
import type { SyntheticTarget } from '../support/synthetic/target.ts';
import { syntheticDriver } from './drivers/synthetic.ts';
import type { Driver, System } from './provider/index.ts';
import { broadens, runCase, runCases } from './suite-run.ts';

/** What looked like a pass, and was none. */
describe('the provider suite', () => {
  test.each([
    [
      'a longest life that is cut short',
      /it ends \d+ s before/,
      (target: SyntheticTarget) => target.faults.set('mint', broadens({ expiresAt: new Date(Date.now() + 900) })),
    ],
    [
      'a shortest life that can never be had',
      /It is too short/,
      (target: SyntheticTarget) =>
        target.faults.set('mint', {
          answer: async ({ refs, honest }) => {
            // As one that takes longer than that each time.
            if (refs.some(({ deadline }) => deadline.getTime() < target.now() + 1_500)) {
              target.turn(800);
              throw new ProviderError('retryable', 'It is too short.');
            }
            return await honest(refs);
          },
        }),
    ],
  ])('fails %s', async (_what, says, sicken) => {
    const name = 'mint: the shortest and the longest';
    await expect(runCase(syntheticDriver('handles', sicken), name)).rejects.toThrow(says);
    await expect(runCase(syntheticDriver('handles'), name)).resolves.toBeDefined();
  });

  test('fails a secret in clear, however deep it stands in a connection', async () => {
    const whole = syntheticDriver('handles');
    const auth = (token: z.ZodString) =>
      z.strictObject({ system: z.string(), auth: z.strictObject({ approle: z.strictObject({ token }) }) });
    const deep = (token: z.ZodString): Driver => ({
      provider: {
        ...whole.provider,
        targetSchema: auth(token),
        connect: (_target, context) => whole.provider.connect({ system: 'memory' }, context),
      },
      start: async () => ({
        ...(await whole.start()),
        connection: { system: 'memory', auth: { approle: { token: 'env:TOKEN' } } },
        secrets: { 'env:TOKEN': randomUUID() },
      }),
    });
    await expect(runCase(deep(z.string()), 'schema: a secret')).rejects.toThrow(
      /auth.approle.token was taken in clear/,
    );
    await expect(runCase(deep(z.string().regex(/^env:/)), 'schema: a secret')).resolves.toEqual({});
  });

  test('fails another installation that is refused for no reason of its own', async () => {
    const whole = syntheticDriver('handles');
    let ours: string | undefined;
    const { provider } = whole;
    const alone: Driver = {
      ...whole,
      provider: {
        ...provider,
        connect: (target, context) => {
          ours ??= context.installation;
          const session = provider.connect(target, context);
          if (context.installation === ours) return session;
          const mint = () => Promise.reject(new ProviderError('retryable', 'It is out of order.'));
          return new Proxy(session, { get: (on, name) => (name === 'mint' ? mint : bound(on, name)) });
        },
      },
    };
    await expect(runCase(alone, 'foreign: a credential of another')).rejects.toThrow(
      /was not refused: It is out of order/,
    );
  });

  test('is not conformant where it could not be restarted, or had no way of its own', async () => {
    const name = 'conformance: the driver can';
    const without = async (change: (system: System) => Partial<System>): Promise<unknown> => {
      const whole = syntheticDriver('handles');
      const start = async (): Promise<System> => {
        const system = await whole.start();
        return { ...system, ...change(system), without: { ...system.without, restart: 'no', 'faults.apart': 'no' } };
      };
      return await runCase({ ...whole, start }, name);
    };
    await expect(without(() => ({}))).resolves.toEqual({});
    await expect(
      without(({ faults }) => {
        if (faults === undefined) return {};
        const rest = { ...faults };
        Reflect.deleteProperty(rest, 'apart');
        return { faults: rest };
      }),
    ).rejects.toThrow(/Not conformant/);
    const bounded = await runCase(syntheticDriver('handles'), name, { bounded: true });
    expect(bounded).toEqual({ notApplicable: 'it was a bounded run, which shows the mechanism of one entitlement' });
  });

  test('says at once that a case would be over before the lives that it waits for', async () => {
    const whole = syntheticDriver('handles');
    const slow = (patienceMillis?: number): Driver => ({
      ...whole,
      ...(patienceMillis === undefined ? {} : { patienceMillis }),
      start: async () => {
        const { clock: _clock, ...system } = await whole.start();
        return { ...system, shortestLifeSeconds: 900 };
      },
    });
    await expect(runCase(slow(), 'handle:')).rejects.toThrow(/Its shortest life is 900 s.*`patienceMillis` of 1810000/);
    await expect(runCase(slow(1_810_000), 'handle:')).resolves.toEqual({});
  });

  test('fails an end after a case that was none, and what is left when all is over', async () => {
    const mints = 'mint: what was minted works';
    const last = 'conformance: when all is over';
    const refused = { ok: false, error: new ProviderError('denied', 'It may not.') };
    const denied = behaving('fence', (refs) => refs.map(() => refused));
    await expect(runCase(denied, mints)).rejects.toThrow('It may not.');
    const leaves = behaving('reap', (refs) => refs.map(() => ({ ok: true, evidence: {} })));
    await expect(runCases(leaves, [mints, last])).rejects.toThrow(/could not be cleaned: the identity/);
    await expect(runCases(syntheticDriver('handles'), [mints, last])).resolves.toEqual({ leftBehind: 0 });
  });
});

/** One call of its sessions answers something else, and does nothing. */
function behaving(call: 'fence' | 'reap', answer: (refs: readonly Ref[]) => unknown): Driver {
  const whole = syntheticDriver('handles');
  const { provider } = whole;
  const instead = (refs: readonly Ref[]): Promise<unknown> => Promise.resolve(answer(refs));
  return {
    ...whole,
    provider: {
      ...provider,
      connect: (target, context) =>
        new Proxy(provider.connect(target, context), {
          get: (on, name) => (name === call ? instead : bound(on, name)),
        }),
    },
  };
}

function bound(on: object, name: string | symbol): unknown {
  const member: unknown = Reflect.get(on, name, on);
  return typeof member === 'function' ? (member.bind(on) as unknown) : member;
}
