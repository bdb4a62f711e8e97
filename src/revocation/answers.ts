import { ProviderError, type Evidence } from '../provider.ts';
import { orAborted, within } from '../domain/within.ts';

/** One call to a target. Fencing includes the sweeps of live sessions. */
const CALL_SECONDS = 15;
/** So long after its signal a call may still say what it has done: one item that hangs must not take that from the others. */
const GRACE_SECONDS = 1;
/** What jsonb refuses, as JSON.stringify writes it: NUL and halves of surrogate pairs. Clients can name themselves so. */
const UNSTORABLE = /(?<!\\)((?:\\\\)*)\\u(?:0000|d[89a-f][0-9a-f]{2})/g;
/** More than this of one credential is no evidence but a dump. */
const MOST_EVIDENCE = 32_768;

/**
 * The answers of one batch call to a provider, one per item.
 * @throws ProviderError `misconfigured` when there are more or fewer: then nobody knows which is whose.
 */
export async function askEach<A>(
  count: number,
  signal: AbortSignal,
  ask: (signal: AbortSignal) => Promise<readonly A[]>,
): Promise<readonly A[]> {
  const limited = within(CALL_SECONDS * 1000, signal);
  const answers = await orAborted(ask(limited), within((CALL_SECONDS + GRACE_SECONDS) * 1000, signal));
  const given = Array.isArray(answers) ? answers.length : undefined;
  if (given !== count)
    throw new ProviderError('misconfigured', `The provider answered ${given ?? typeof answers} for ${count}.`);
  return answers;
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
