import { type ErrorClass, ProviderError } from '../../../src/provider.ts';
import type { Fault } from './target.ts';

/** Never answers; ends when it is told to. */
export const hangs: Fault = { answer: async () => await new Promise(() => {}) };

/** Never answers, and does not end either. */
export const isDeaf: Fault = { ...hangs, deaf: true };

/** Says that it did it, to every ref, and did nothing. */
export const lies: Fault = { answer: async ({ refs }) => refs.map(() => ({ ok: true, evidence: { said: 'done' } })) };

export function refuses(errorClass: ErrorClass, says: string): Fault {
  return { answer: async () => await Promise.reject(new ProviderError(errorClass, says)) };
}

/** Does it, and answers something else. */
export function answers(instead: (honest: readonly unknown[]) => unknown): Fault {
  return {
    answer: async ({ refs, honest }) => {
      const answer = await honest(refs);
      return instead(Array.isArray(answer) ? answer : [answer]);
    },
  };
}

/** Does it for all, and answers that for one handle. */
export function badHandle(handle: string, instead: unknown): Fault {
  return {
    answer: async ({ refs, honest }) => {
      const answer = await honest(refs);
      const each: readonly unknown[] = Array.isArray(answer) ? answer : [];
      return refs.map((ref, index) => (ref.handle === handle ? instead : each[index]));
    },
  };
}

/** Throws whatever is asked, when that handle is among it; else does it. What it throws is no error of a provider. */
export function poisonedBy(handle: string): Fault {
  return {
    answer: async ({ refs, honest }) => {
      if (refs.some((ref) => ref.handle === handle)) throw new TypeError(`${handle} can not be read`);
      return await honest(refs);
    },
  };
}

/** Does it for all but one, and says that it did it for all. */
export function skips(handle: string): Fault {
  return {
    answer: async ({ refs, honest }) => {
      await honest(refs.filter((ref) => ref.handle !== handle));
      return refs.map((ref) => ({ ok: true, evidence: { said: 'done' }, handle: ref.handle }));
    },
  };
}

/** Tells the truth, in another order than it was asked in. */
export const mixesUp: Fault = answers((honest) => honest.toReversed());
