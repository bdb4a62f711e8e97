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
    const answers = new Map<Ref, A | Failed>();
    const askPart = async (part: readonly Ref[]): Promise<boolean> => {
      try {
        const given = await askOnce(part, signal, ask);
        for (const [index, ref] of part.entries()) {
          const answer = given[index];
          if (answer !== undefined) answers.set(ref, answer);
        }
        return true;
      } catch (cause) {
        if (isOfAll(cause, signal)) throw cause;
        const [only, ...others] = part;
        if (only !== undefined && others.length === 0) answers.set(only, failedBy(cause));
        return false;
      }
    };
    const served = [await askPart(refs.slice(0, 1)), await askPart(refs.slice(-1))];
    if (!served.includes(true)) throw error;
    const parts = [refs.slice(1, -1)];
    for (let left = MOST_PARTS; left > 0; left -= 1) {
      const part = parts.shift() ?? [];
      if (part.length === 0) break;
      if ((await askPart(part)) || part.length === 1) continue;
      const half = part.length >> 1;
      parts.push(part.slice(0, half), part.slice(half));
    }
    return refs.map((ref) => answers.get(ref) ?? failedBy(error));
  }
}

async function askOnce<A extends Answer>(
  refs: readonly Ref[],
  signal: AbortSignal,
  ask: Ask<A>,
): Promise<readonly A[]> {
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
function failedBy(error: unknown): Failed {
  const says = error instanceof Error ? error.name : 'failed';
  return { ok: false, error: error instanceof ProviderError ? error : new ProviderError('retryable', says) };
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
