import type { FenceForm } from './document.ts';
import type { PlannedFence } from './plan.ts';

/** What a ref was fenced by. */
export interface Fenced {
  readonly policy: string;
  readonly generation: number;
  readonly form: FenceForm;
  /** Of those that were to go on, whom it denies all the same, or another document of ours that stands. */
  readonly besides: readonly string[];
}

export function fencedBy({ name, says, form }: PlannedFence, besides: readonly string[]): Fenced {
  return { policy: name, generation: says.generation, form, besides };
}
