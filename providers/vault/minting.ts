import { z } from 'zod';
import { type Minted, type MintRequest, ProviderError, type Ref, Secret, within } from '../../src/provider.ts';
import { refusal } from './errors.ts';
import { type GrantToken, type Learnt, toFacts } from './handle.ts';
import { revokeLease } from './leases.ts';
import { workMillis } from './lost.ts';
import { endOfToken, tokenAsked, tokenIn } from './make-token.ts';
import type { Note, StoredNote } from './notes.ts';
import { assertMakesNoTokens } from './powers.ts';
import { type Read, type Reading, readSecret, tokenItself } from './read.ts';
import type { VaultEntitlement } from './schema.ts';
import type { Target } from './target.ts';
import { revokeAccessor } from './tokens.ts';
import { type Received, Unreached } from './transport.ts';

/** Milliseconds for taking back what a failed mint has made. What is not done then is the work of its fence. */
const undoMillis = 5000;
const refusalSchema = z.object({ errors: z.array(z.string()) });
/** Answers of Vault itself after which it works on the request no more. Others may be of whatever stands between. */
const refusals = [400, 403, 404, 405, 500];

/**
 * One mint on its way. What it calls is not broken off when its caller gives up: Vault forgets what an engine made for somebody who is
 * gone (measured: no lease of it is kept, and the login stays). It is waited for as long as Vault works on it, and ended then.
 */
export class Minting {
  readonly #target: Target;
  readonly #ref: Ref;
  readonly #request: MintRequest<VaultEntitlement>;
  readonly #path: string | null;
  readonly #expires: boolean;
  readonly #slow = new AbortController();
  readonly #signal: AbortSignal;
  #left = false;
  #note: StoredNote | null = null;
  #made: GrantToken | null = null;
  #facts: Learnt | null = null;
  /** What may be on its way, since no answer came. */
  #open: 'begun' | 'reading' | null = null;

  constructor(target: Target, ref: Ref, request: MintRequest<VaultEntitlement>, path: string | null, expires: boolean) {
    this.#target = target;
    this.#signal = within(3 * workMillis(target));
    this.#ref = ref;
    this.#request = request;
    this.#path = path;
    this.#expires = expires;
  }

  /** Fires when one call takes longer than calls may. */
  get slow(): AbortSignal {
    return this.#slow.signal;
  }

  /** Nobody waits for it any more. */
  leave(): void {
    this.#left = true;
  }

  /** @throws ProviderError when nothing is handed out. What was made by then is taken back. */
  async run(): Promise<Minted> {
    const { cluster_id: clusterId } = await this.#target.issuing.health(this.#signal);
    const began = Date.now();
    await this.#begin();
    try {
      const made = await this.#makeToken(clusterId, Date.now() - began);
      const { mode } = this.#request.config;
      if (mode === 'token') await assertMakesNoTokens(this.#target, made.accessor, this.#signal);
      if (mode === 'token' || this.#path === null) return await this.#handOut(tokenItself(this.#target, made));
      await this.#move('reading');
      return await this.#handOut(await readSecret(this.#target, made, this.#request, this.#path, this.#reading(made)));
    } catch (error) {
      await this.#undo();
      throw error;
    }
  }

  /** Before anything else there is a note of it: without one nothing can have been made. */
  async #begin(): Promise<void> {
    this.#assertWanted();
    const { config, notes, issuing } = this.#target;
    if (notes === null) return;
    // Later than that its absence says that nothing was begun.
    const signal = within(config.request_timeout_seconds * 1000, this.#signal);
    this.#note = await notes.begin(issuing, this.#ref.handle, signal);
    if (this.#note === null) throw new ProviderError('gone', 'minting: the grant was minted or ended before');
  }

  async #makeToken(clusterId: string, delayMillis: number): Promise<GrantToken> {
    const { issuing, place, notes } = this.#target;
    const { config, notAfter } = this.#request;
    this.#assertWanted();
    const asked = tokenAsked(this.#target, this.#ref, this.#request, this.#path, {
      ...{ delayMillis, expires: this.#expires },
    });
    const path = `auth/token/create/${place.role}`;
    const wrap = asked.wrap === undefined ? {} : { wrap: asked.wrap };
    const call = { method: 'POST', path, data: asked.data, totalMillis: workMillis(this.#target), ...wrap } as const;
    const received = await this.#waitFor('begun', () =>
      issuing.call('making a token', call, this.#signal, [200], true),
    );
    const made = tokenIn(received, asked.wrap);
    this.#made = made;
    this.#open = null;
    this.#facts = {
      ...{ cluster_id: clusterId, namespace: place.namespace, role: place.role },
      ...{ accessor: made.accessor, mode: config.mode, policies: [...config.policies].sort().join(' ') },
      not_after: notAfter.toISOString(),
      ...(this.#path === null ? {} : { path: this.#path }),
      ...(config.mode === 'token' && config.lease_paths.length > 0
        ? { lease_paths: config.lease_paths.join(' ') }
        : {}),
      ...(notes === null ? {} : { noted: true }),
    };
    return { ...made, expiresAt: await endOfToken(this.#target, made, asked, this.#request, this.#signal) };
  }

  #reading({ token }: GrantToken): Reading {
    return {
      signal: this.#signal,
      ask: async (doing, call) => {
        this.#assertWanted();
        const { reading } = this.#target;
        const asked = { ...call, totalMillis: workMillis(this.#target) };
        const received = await this.#waitFor('reading', () => reading.as(token ?? '', asked, this.#signal));
        if (refusals.includes(received.status) && refusalSchema.safeParse(received.body).success) this.#open = null;
        if (received.status !== 200) throw refusal(received, doing);
        // Of a value that was there before nothing is left.
        if (this.#request.config.mode === 'kv') this.#open = null;
        return received;
      },
      learn: async (learnt) => {
        this.#open = null;
        this.#learn(learnt);
        await this.#move('read');
        this.#assertWanted();
      },
    };
  }

  #learn(learnt: Read['learnt']): void {
    if (this.#facts !== null) this.#facts = { ...this.#facts, ...learnt };
  }

  /** What it is called by when it is ended is noted before anybody has it. */
  async #handOut({ secret, expiresAt, learnt }: Read): Promise<Minted> {
    this.#learn(learnt);
    // Else the facts would name a cluster that has never seen it.
    await this.#target.confirm(this.#signal);
    await this.#move('made');
    this.#assertWanted();
    if (this.#facts === null) throw new ProviderError('retryable', 'minting: nothing is known of it');
    return { secret: new Secret(secret), expiresAt, facts: toFacts(this.#ref.grantId, this.#facts) };
  }

  /** @throws ProviderError `gone` when it was ended meanwhile. */
  async #move(state: Note['state']): Promise<void> {
    const { notes, issuing } = this.#target;
    if (notes === null || this.#note === null) return;
    this.#note = await notes.move(issuing, this.#ref.handle, this.#note, this.#noted(state), this.#signal);
    if (this.#note === null) throw new ProviderError('gone', 'minting: the grant was ended meanwhile');
  }

  #noted(state: Note['state']): Pick<Note, 'state' | 'facts'> {
    return { state, ...(this.#facts === null ? {} : { facts: toFacts(this.#ref.grantId, this.#facts) }) };
  }

  /** A process that was held up makes nothing any more, nor for a caller who is gone. @throws ProviderError */
  #assertWanted(): void {
    const { mintBy, deadline } = this.#request;
    if (this.#left) throw new ProviderError('retryable', 'minting: it was given up');
    if (Date.now() > deadline.getTime()) throw new ProviderError('gone', 'minting: the deadline is over');
    if (Date.now() > mintBy.getTime()) throw new ProviderError('retryable', 'minting: its time is over');
  }

  /** The answer of what may take long. Its caller is told when it takes longer than calls may. */
  async #waitFor(open: 'begun' | 'reading', ask: () => Promise<Received>): Promise<Received> {
    const timer = setTimeout(() => this.#slow.abort(), this.#target.config.request_timeout_seconds * 1000);
    this.#open = open;
    try {
      return await ask();
    } catch (error) {
      if (isNothing(error)) this.#open = null;
      throw error;
    } finally {
      clearTimeout(timer);
    }
  }

  /** Nobody has the secret. What is known is noted first, so that its fence goes on where this stops. */
  async #undo(): Promise<void> {
    const { notes, revoking, context } = this.#target;
    const { handle } = this.#ref;
    const signal = within(undoMillis);
    const noted = this.#noted(this.#open ?? 'dropped');
    const accessors = [this.#made?.accessor, this.#made?.wrapped?.accessor, this.#facts?.wrapping_accessor];
    const lease = this.#facts?.lease_id;
    const settled = await Promise.allSettled([notes?.settle(revoking, handle, () => noted, signal)]);
    const done = await Promise.allSettled([
      ...[...new Set(accessors)].flatMap((accessor) =>
        accessor === undefined ? [] : [revokeAccessor(this.#target, accessor, signal)],
      ),
      ...(lease === undefined ? [] : [revokeLease(this.#target, lease, signal)]),
    ]);
    const failed = [...settled, ...done].find((one) => one.status === 'rejected');
    if (failed !== undefined)
      context.log({ handle, error: failed.reason }, 'what a failed mint made is left to its end');
  }
}

/** What was never sent, and what Vault refused, leave nothing. */
function isNothing(error: unknown): boolean {
  if (error instanceof Unreached) return !error.sent;
  return error instanceof ProviderError && ['denied', 'misconfigured'].includes(error.errorClass);
}
