import { type Answer, type Evidence, ProviderError, type Ref } from '../provider.ts';
import { orAborted, within } from '../domain/within.ts';

/** One call to a target. Fencing includes the sweeps of live sessions. */
const CALL_SECONDS = 15;
/** So long after its signal a call may still say what it has done: one item that hangs must not take that from the others. */
const GRACE_SECONDS = 1;
/** What jsonb refuses, as JSON.stringify writes it: NUL and halves of surrogate pairs. Clients can name themselves so. */
const UNSTORABLE = /(?<!\\)((?:\\\\)*)\\u(?:0000|d[89a-f][0-9a-f]{2})/g;
/** More than this of one credential is no evidence but a dump. */
const MOST_EVIDENCE = 32_768;

/** How often a batch that failed as a whole is asked in parts: enough to find a few that break it among fifty. */
const MOST_PARTS = 24;

type Ask<A> = (refs: readonly Ref[], signal: AbortSignal) => Promise<readonly A[]>;
type Failed = { readonly ok: false; readonly error: ProviderError };

/**
 * The answers of one batch call to a provider, one per ref. A call that throws because of one of them is made again in parts, so that
 * the others have their answers; a target that serves nobody is asked for two of them alone, and left.
 * @throws whatever the call throws, when it is nobody's in particular; ProviderError `misconfigured` for answers that do not tell
 * whose they are: more or fewer than asked for, or of another handle.
 */
export async function askEach<A extends Answer>(
  refs: readonly Ref[],
  signal: AbortSignal,
  ask: Ask<A>,
): Promise<readonly (A | Failed)[]> {
  try {
    return await askOnce(refs, signal, ask);
  } catch (error) {
    if (refs.length === 1 || isOfAll(error, signal)) throw error;
    const answers = new Map<Ref, A>();
    const failed = new Map<Ref, Failed>();
    let left = MOST_PARTS;
    const search = async (part: readonly Ref[]): Promise<void> => {
      if (part.length === 0 || left === 0) return;
      left -= 1;
      try {
        for (const [index, answer] of (await askOnce(part, signal, ask)).entries()) {
          const ref = part[index];
          if (ref !== undefined) answers.set(ref, answer);
        }
      } catch (cause) {
        if (isOfAll(cause, signal)) throw cause;
        const [only, ...others] = part;
        if (only !== undefined && others.length === 0) failed.set(only, { ok: false, error: asProviderError(cause) });
        const half = part.length >> 1;
        for (const some of half === 0 ? [] : [part.slice(0, half), part.slice(half)]) await search(some);
      }
    };
    await search(refs.slice(0, 1));
    await search(refs.slice(-1));
    if (answers.size === 0) throw error;
    await search(refs.slice(1, -1));
    const unknown: Failed = { ok: false, error: asProviderError(error) };
    return refs.map((ref) => answers.get(ref) ?? failed.get(ref) ?? unknown);
  }
}

async function askOnce<A extends Answer>(refs: readonly Ref[], signal: AbortSignal, ask: Ask<A>): Promise<readonly A[]> {
  const limited = within(CALL_SECONDS * 1000, signal);
  const answers = await orAborted(ask(refs, limited), within((CALL_SECONDS + GRACE_SECONDS) * 1000, signal));
  const given = Array.isArray(answers) ? answers.length : undefined;
  if (given !== refs.length)
    throw new ProviderError('misconfigured', `The provider answered ${given ?? typeof answers} for ${refs.length}.`);
  answers.forEach((answer, index) => {
    const handle: unknown = answer?.handle;
    if (handle !== undefined && handle !== refs[index]?.handle)
      throw new ProviderError('misconfigured', 'The provider answered for another than it was asked about.');
  });
  return answers;
}

/** It says nothing about one of them: no part of the batch would fare better. */
function isOfAll(error: unknown, signal: AbortSignal): boolean {
  const late = error instanceof DOMException && error.name === 'TimeoutError';
  return late || signal.aborted || (error instanceof ProviderError && error.wholeTarget);
}

/** Whatever else was thrown may say anything: only its name is kept. */
function asProviderError(error: unknown): ProviderError {
  if (error instanceof ProviderError) return error;
  return new ProviderError('retryable', error instanceof Error ? error.name : 'failed');
}

/** Evidence as the store can keep it, or undefined when it is none: what is answered for one credential must not spoil a batch. */
export function storable(evidence: unknown): Evidence | undefined {
  try {
    const text = JSON.stringify(evidence);
    if (text.length > MOST_EVIDENCE) return { left_out: `${text.length} characters` };
    const kept: unknown = JSON.parse(text.replace(UNSTORABLE, '$1\\ufffd'));
    return typeof kept === 'object' && kept !== null && !Array.isArray(kept) ? { ...kept } : undefined;
  } catch {
    return undefined;
  }
}
