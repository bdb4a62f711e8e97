import { z } from 'zod';
import { ProviderError } from '../../src/provider.ts';
import { unreadable } from './errors.ts';
import type { Lane } from './target.ts';

const mountsSchema = z.object({
  data: z.record(z.string(), z.object({ type: z.string(), options: z.record(z.string(), z.string()).nullish() })),
});
type Mounts = z.infer<typeof mountsSchema>['data'];

/** Milliseconds for which the mounts are remembered: nobody moves an engine under live grants. */
const mountsAge = 30_000;

export interface Engine {
  /** With a slash at its end. */
  readonly mount: string;
  readonly type: string;
  readonly version: string | undefined;
}

/** Which secrets engines the target has, as it says itself. */
export class Engines {
  #known: { readonly mounts: Mounts; readonly readAt: number } | undefined;

  /** The engine that serves a path; one that is new is looked for anew. @throws ProviderError `misconfigured` when there is none. */
  async at(lane: Lane, path: string, signal: AbortSignal): Promise<Engine> {
    const found = engineIn(await this.#mounts(lane, signal), path);
    if (found !== undefined) return found;
    this.#known = undefined;
    const anew = engineIn(await this.#mounts(lane, signal), path);
    if (anew === undefined) throw new ProviderError('misconfigured', `no secrets engine is mounted for ${path}`);
    return anew;
  }

  async #mounts(lane: Lane, signal: AbortSignal): Promise<Mounts> {
    if (this.#known !== undefined && performance.now() - this.#known.readAt < mountsAge) return this.#known.mounts;
    const doing = 'reading its mounts';
    const received = await lane.call(doing, { method: 'GET', path: 'sys/mounts' }, signal, [200]);
    const parsed = mountsSchema.safeParse(received.body);
    if (!parsed.success) throw unreadable(doing);
    this.#known = { mounts: parsed.data.data, readAt: performance.now() };
    return parsed.data.data;
  }
}

function engineIn(mounts: Mounts, path: string): Engine | undefined {
  const [mount] = Object.keys(mounts)
    .filter((one) => `${path}/`.startsWith(one))
    .sort((a, b) => b.length - a.length);
  const found = mount === undefined ? undefined : mounts[mount];
  return mount === undefined || found === undefined
    ? undefined
    : { mount, type: found.type, version: found.options?.['version'] };
}
