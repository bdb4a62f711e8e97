import type { Measured } from '../live.ts';
import type { Subject } from '../subject.ts';

export interface CaseOf {
  /** What must hold, in the words of a provider's author. */
  readonly name: string;
  /** @throws NotApplicable; any other error is a failure. */
  readonly run: (subject: Subject) => Promise<Measured | undefined | void>;
}
