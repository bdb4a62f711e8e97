import type { Renewed } from '../../client/index.ts';

/** A credential laid for the child, in the way that its kind is used. */
export interface Handover {
  readonly env: NodeJS.ProcessEnv;
  /** For a target that can not extend the one in hand: the child is to have the new one. */
  renewed?(renewed: Renewed): void;
  /** It ended before its deadline. */
  ended?(): void;
  /** Takes all of it away. */
  remove(): void;
}

/** Of this process, for the child: without our own settings and tokens, and without what would lead it to another credential. */
export function environmentWithout(misleading: RegExp): NodeJS.ProcessEnv {
  return Object.fromEntries(
    Object.entries(process.env).filter(([name]) => !name.startsWith('MAYFLY_') && !misleading.test(name)),
  );
}
