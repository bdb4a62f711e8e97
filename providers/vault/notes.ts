import { z } from 'zod';
import { type Facts, ProviderError } from '../../src/provider.ts';
import { saidBy, refusal, unreadable } from './errors.ts';
import type { Lane } from './target.ts';
import type { Received } from './transport.ts';

/**
 * How far a mint has come. Each step is noted before it is taken, and is not taken when the note has changed meanwhile:
 * - `none`: it was ended before it began, and can not begin any more;
 * - `begun`: its token may be on its way. Nothing was handed out, and nothing was read;
 * - `reading`: what it reads may be on its way. Nothing was handed out;
 * - `read`: what came of it is known, and was not handed out;
 * - `made`: it may have been handed out;
 * - `dropped`: it failed. Nothing was handed out, and nothing of it is on its way.
 */
const stateSchema = z.enum(['none', 'begun', 'reading', 'read', 'made', 'dropped']);

const noteSchema = z.object({
  state: stateSchema,
  ended: z.boolean(),
  /** Until then a call of its mint that Vault had before its end may be at work there. Known once it is ended. */
  until: z.iso.datetime().optional(),
  /** That its token was there until then and after: all that its read had made went with it. */
  kept: z.literal(true).optional(),
  /** As far as they are known. Without a lease while it is being read. */
  facts: z.record(z.string(), z.union([z.string(), z.number(), z.boolean(), z.null()])).optional(),
});
const storedSchema = z.object({
  data: z.object({ data: noteSchema, metadata: z.object({ version: z.int() }) }),
});
const writtenSchema = z.object({ data: z.object({ version: z.int() }) });
const keysSchema = z.object({ data: z.object({ keys: z.array(z.string()) }) });

export interface Note extends Omit<z.infer<typeof noteSchema>, 'facts'> {
  readonly facts?: Facts | undefined;
}
export interface StoredNote extends Note {
  /** Counted by Vault; another's is refused. */
  readonly version: number;
}

const notPrepared = 'the target keeps no notes yet (mayfly target prepare)';
/** A note that another wrote between is read again, so often. */
const tries = 8;

/**
 * What is known of each grant until it is clean, in a KV version 2 mount of the target: before its token is there, and when that is
 * gone with all that it told. Writes are compared and set, so that a mint and an end of one grant never miss each other.
 */
export class Notes {
  readonly #mount: string;
  /** Leases that notes name, by handle: they never change. */
  readonly #leases = new Map<string, string | null>();

  constructor(mount: string) {
    this.#mount = mount;
  }

  /** The note of a mint that is about to begin, before anything else of it. Null when there is one already. @throws ProviderError */
  async begin(lane: Lane, handle: string, signal: AbortSignal): Promise<StoredNote | null> {
    return await this.#write(lane, handle, { state: 'begun', ended: false, version: 0 }, signal);
  }

  /** The next step of it, or null when it was ended meanwhile. @throws ProviderError */
  async move(
    lane: Lane,
    handle: string,
    from: StoredNote,
    to: Pick<Note, 'state' | 'facts'>,
    signal: AbortSignal,
  ): Promise<StoredNote | null> {
    return await this.#write(lane, handle, { ...from, ...to }, signal);
  }

  /**
   * Notes that it is ended. What was noted stays.
   * @param begin Whether a mint of it could still begin: it then can not any more. Else null is answered where nothing was noted.
   * @throws ProviderError
   */
  async end(lane: Lane, handle: string, begin: boolean, signal: AbortSignal): Promise<StoredNote | null> {
    return await this.#change(lane, handle, signal, (note) => {
      if (note?.ended === true || (note === null && !begin)) return null;
      return { ...(note ?? { state: 'none', version: 0 }), ended: true };
    });
  }

  /** Changes what is noted of a grant, if anything is. @throws ProviderError */
  async settle(
    lane: Lane,
    handle: string,
    change: (note: Note) => Partial<Note>,
    signal: AbortSignal,
  ): Promise<StoredNote | null> {
    return await this.#change(lane, handle, signal, (note) => (note === null ? null : { ...note, ...change(note) }));
  }

  /** @throws ProviderError */
  async find(lane: Lane, handle: string, signal: AbortSignal): Promise<StoredNote | null> {
    const doing = 'looking for a note';
    const received = await lane.call(doing, { method: 'GET', path: this.#path(handle) }, signal, [200, 404]);
    if (received.status === 404) {
      this.#assertMounted(received, doing);
      return null;
    }
    const parsed = storedSchema.safeParse(received.body);
    if (!parsed.success) throw unreadable(doing);
    const { data, metadata } = parsed.data.data;
    return { ...data, version: metadata.version };
  }

  /** @throws ProviderError */
  async forget(lane: Lane, handle: string, signal: AbortSignal): Promise<void> {
    const call = { method: 'DELETE', path: `${this.#mount}/metadata/minting/${handle}` } as const;
    await lane.call('forgetting a note', call, signal, [200, 204, 404]);
  }

  /** Of whom there are notes. @throws ProviderError */
  async handles(lane: Lane, signal: AbortSignal): Promise<readonly string[]> {
    const doing = 'listing notes';
    const call = { method: 'LIST', path: `${this.#mount}/metadata/minting` } as const;
    const received = await lane.call(doing, call, signal, [200, 404]);
    if (received.status === 404) {
      this.#assertMounted(received, doing);
      return [];
    }
    const parsed = keysSchema.safeParse(received.body);
    if (!parsed.success) throw unreadable(doing);
    return parsed.data.data.keys;
  }

  /** The leases that other grants are known to have. @throws ProviderError */
  async leasesBut(lane: Lane, handle: string, signal: AbortSignal): Promise<ReadonlySet<string>> {
    const handles = new Set(await this.handles(lane, signal));
    for (const known of this.#leases.keys()) if (!handles.has(known)) this.#leases.delete(known);
    for (const other of handles) {
      if (this.#leases.has(other)) continue;
      const note = await this.find(lane, other, signal);
      const lease = note?.facts?.['lease_id'];
      if (typeof lease === 'string') this.#leases.set(other, lease);
      else if (note?.state === 'made') this.#leases.set(other, null);
    }
    return new Set([...this.#leases].flatMap(([other, lease]) => (other === handle || lease === null ? [] : [lease])));
  }

  async #change(
    lane: Lane,
    handle: string,
    signal: AbortSignal,
    change: (note: StoredNote | null) => StoredNote | null,
  ): Promise<StoredNote | null> {
    for (let tried = 0; tried < tries; tried += 1) {
      const note = await this.find(lane, handle, signal);
      const changed = change(note);
      if (changed === null) return note;
      const written = await this.#write(lane, handle, changed, signal);
      if (written !== null) return written;
    }
    throw new ProviderError('retryable', 'noting: it changes again and again');
  }

  /** Null when another wrote between. */
  async #write(lane: Lane, handle: string, note: StoredNote, signal: AbortSignal): Promise<StoredNote | null> {
    const doing = 'noting what becomes of a grant';
    const { version, ...data } = note;
    const call = { method: 'POST', path: this.#path(handle), data: { data, options: { cas: version } } } as const;
    const received = await lane.call(doing, call, signal, [200, 400, 404]);
    if (received.status === 404) {
      this.#assertMounted(received, doing);
      throw refusal(received, doing);
    }
    if (received.status === 200) {
      const written = writtenSchema.safeParse(received.body);
      if (!written.success) throw unreadable(doing);
      return { ...note, version: written.data.data.version };
    }
    if (/check-and-set/i.test(saidBy(received))) return null;
    throw refusal(received, doing);
  }

  /** Without a mount nothing was looked for. */
  #assertMounted(received: Received, doing: string): void {
    if (/route/i.test(saidBy(received))) throw new ProviderError('misconfigured', `${doing}: ${notPrepared}`);
  }

  #path(handle: string): string {
    return `${this.#mount}/data/minting/${handle}`;
  }
}
