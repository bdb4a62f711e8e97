import { type Observation, observedSessions, type Ref, within } from '../../src/provider.ts';
import { observe, type Sample, sampleSessions } from './observe.ts';
import { isPrimary, type PrimaryPosition, primaryPosition, type Standby } from './standby.ts';
import type { Target } from './target.ts';

/** Milliseconds for one standby: the look at the others does not wait longer for one that is down. */
const patience = 3000;

/** What one standby shows of each ref, or why it shows nothing. */
type Look =
  | { readonly standby: Standby; readonly samples: readonly Sample[] }
  | { readonly standby: Standby; readonly unseen: string };

/** The sessions on the primary and on every listed standby, each with its name. One that cannot be looked at is told. */
export async function observeEverywhere(
  target: Target,
  refs: readonly Ref[],
  signal: AbortSignal,
): Promise<readonly Observation[]> {
  const here = await observe(target, refs, signal);
  if (target.standbys.length === 0) {
    return here;
  }
  const primary = await primaryPosition(target.issuing, signal);
  const looks = await Promise.all(target.standbys.map((standby) => lookAt(target, standby, refs, primary, signal)));
  return here.map((seen, index) => (seen.ok ? looks.reduce((sum, look) => joined(sum, look, index), seen) : seen));
}

async function lookAt(
  target: Target,
  standby: Standby,
  refs: readonly Ref[],
  primary: PrimaryPosition,
  signal: AbortSignal,
): Promise<Look> {
  const bounded = within(patience, signal);
  try {
    // One that was promoted is looked at as well: what was let in there goes on.
    if (isPrimary(await standby.state(primary, bounded), primary)) {
      return { standby, samples: [] };
    }
    const { installation } = target.context;
    const samples = await standby.pool.useTwice(bounded, ({ connection }) =>
      sampleSessions(connection, refs, installation, standby.clock, bounded),
    );
    return { standby, samples };
  } catch (error) {
    return { standby, unseen: standby.named(error).message };
  }
}

type Seen = Extract<Observation, { ok: true }>;

function joined(sum: Seen, look: Look, index: number): Seen {
  if ('unseen' in look) {
    return { ...sum, unseen: [...(sum.unseen ?? []), look.unseen] };
  }
  const { total, sessions } = look.samples[index] ?? { total: 0, sessions: [] };
  const all = [...sum.sessions, ...sessions.map((session) => ({ ...session, server: look.standby.label }))];
  all.sort((one, other) => one.since.getTime() - other.since.getTime());
  return { ...sum, total: sum.total + total, sessions: all.slice(0, observedSessions) };
}
