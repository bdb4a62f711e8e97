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

/** Answers that for one handle, and is honest about the others. */
export function badHandle(handle: string, instead: unknown): Fault {
  return {
    answer: async ({ refs, honest }) => {
      const others = await honest(refs.filter((ref) => ref.handle !== handle));
      const honestly = (Array.isArray(others) ? others : []).values();
      return refs.map((ref) => (ref.handle === handle ? instead : honestly.next().value));
    },
  };
}
