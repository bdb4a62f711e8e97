import type { KillId } from '../domain/ids.ts';
import { readKills } from '../store/kept-kills.ts';
import type { Kill } from '../store/kills.ts';
import { confirmStanding } from './confirm-kills.ts';
import type { BrokerDeps } from './deps.ts';
import { enactKill } from './kill.ts';

/** A kill that was raised within so long of a failover is known to the replica that took it alone. */
const EVERY_MILLIS = 1_000;
const context = { requestId: 'kill-keeper' };

export interface KillKeeperOptions {
  readonly deps: Pick<BrokerDeps, 'db' | 'catalog' | 'alarms'>;
  /** Who says so in the evidence: this replica. */
  readonly worker: string;
  readonly log: (event: Readonly<Record<string, unknown>>, message: string) => void;
}

/**
 * Remembers the kills that stand. A store that failed over may have forgotten some: a replica that lived through it raises them again,
 * and confirms then that they are all. Until somebody does, nothing is issued (DESIGN, invariant 9).
 */
export class KillKeeper {
  readonly #options: KillKeeperOptions;
  readonly #kept = new Map<KillId, Kill>();
  /** When the store had last forgotten something, as of the last reading; undefined where what is kept may not be all. */
  #since: string | undefined;
  #told = false;
  #timer: NodeJS.Timeout | undefined;
  #looking: Promise<void> | undefined;
  #ended = false;
  #failing = false;

  constructor(options: KillKeeperOptions) {
    this.#options = options;
  }

  start(): void {
    if (this.#ended) return;
    this.#looking = this.keepUp()
      .then(() => {
        this.#failing = false;
      })
      .catch((error: unknown) => {
        // It is asked again, with what is remembered; told once.
        if (!this.#failing) this.#options.log({ error }, 'the standing kills can not be read');
        this.#failing = true;
      })
      .finally(() => {
        if (!this.#ended) this.#timer = setTimeout(() => this.start(), EVERY_MILLIS);
      });
  }

  async stop(): Promise<void> {
    this.#ended = true;
    clearTimeout(this.#timer);
    await this.#looking;
  }

  /** One was just raised here, or lifted. */
  remember(kill: Kill): void {
    if (kill.lifted === null) this.#kept.set(kill.id, kill);
    else this.#kept.delete(kill.id);
  }

  async keepUp(): Promise<void> {
    const { deps, worker, log } = this.#options;
    const known = [...this.#kept.keys()];
    const seen = await readKills(deps.db, known);
    const forgotten = seen.forgotten.flatMap((id) => this.#kept.get(id) ?? []);
    for (const kill of forgotten) {
      await enactKill(deps, kill, context, true);
      log({ kill_id: `kill_${kill.id}`, scope: kill.scope }, 'the store had forgotten a kill: it is raised again');
    }
    // One that was here before it forgot, and only such a one, knows that these are all.
    if (!seen.confirmed && this.#since !== undefined && this.#since !== seen.since)
      await confirmStanding(deps, worker, seen.since, { restored: forgotten.length }, context);
    else this.#tell(!seen.confirmed);
    this.#since = seen.confirmed || this.#since !== undefined ? seen.since : undefined;
    for (const id of known) if (!seen.forgotten.includes(id)) this.#kept.delete(id);
    for (const kill of seen.standing) this.#kept.set(kill.id, kill);
  }

  #tell(unconfirmed: boolean): void {
    if (unconfirmed && !this.#told)
      this.#options.log(
        { alert: 'kills_unconfirmed' },
        'the store may have forgotten kills, and no replica knows: an operator has to confirm them',
      );
    this.#told = unconfirmed;
  }
}
