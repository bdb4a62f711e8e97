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
