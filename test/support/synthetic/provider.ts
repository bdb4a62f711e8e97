import { randomUUID } from 'node:crypto';
import { z } from 'zod';
import {
  type Beat,
  type CheckStep,
  type FenceView,
  type Found,
  type Guarantee,
  type Holder,
  type Minted,
  type MintRequest,
  type Outcome,
  type Provider,
  ProviderError,
  type Ref,
  Secret,
  type Session,
  type Verdict,
} from '../../../src/provider.ts';
import { writeDocument } from './document.ts';
import type { Kind, SyntheticTarget } from './target.ts';

const connection = z.strictObject({ system: z.string() });
const entitlement = z.strictObject({});

/** How far the clocks may differ. Milliseconds. */
const SKEW = 1_000;

/** A provider against the contract, for targets in the memory of the test. Never shipped. */
export function syntheticProvider(
  targets: ReadonlyMap<string, SyntheticTarget>,
): Provider<z.infer<typeof connection>, z.infer<typeof entitlement>> {
  return {
    type: 'synthetic',
    targetSchema: connection,
    entitlementSchema: entitlement,
    connect: ({ system }, { installation }) => {
      const target = targets.get(system);
      if (target === undefined) throw new ProviderError('misconfigured', `There is no system ${system}.`);
      return new SyntheticSession(target, installation);
    },
  };
}

class SyntheticSession implements Session {
  readonly oneDocument: boolean;
  readonly #target: SyntheticTarget;
  readonly #installation: string;

  constructor(target: SyntheticTarget, installation: string) {
    this.#target = target;
    this.#installation = installation;
    this.oneDocument = target.kind === 'document';
  }

  guarantee(_entitlement: unknown, signal: AbortSignal): Promise<Guarantee> {
    return this.#target.call('guarantee', [], signal, async () => guarantees[this.#target.kind]);
  }

  reserve(grantId: string): string {
    return `syn-${grantId}`;
  }

  mint(ref: Ref, request: MintRequest, signal: AbortSignal): Promise<Minted> {
    return this.#target.call('mint', [ref], signal, async () => {
      if (Object.keys(request.params).length > 0) throw new ProviderError('misconfigured', 'It binds no params.');
      const { system } = this.#target;
      const identity = {
        handle: ref.handle,
        grantId: ref.grantId,
        installation: this.#installation,
        endsAt: this.#target.kind === 'irrevocable' ? Number.POSITIVE_INFINITY : request.deadline.getTime(),
      };
      const refused = system.make(identity, request.mintBy.getTime());
      if (refused !== undefined) throw new ProviderError('gone', `It was not made: ${refused}.`);
      return {
        secret: new Secret({ handle: ref.handle, token: randomUUID() }),
        expiresAt: request.deadline,
        facts: { incarnation: system.incarnation },
      };
    });
  }

  fence(refs: readonly Ref[], signal: AbortSignal, view?: FenceView): Promise<readonly Outcome[]> {
    return this.#target.call('fence', refs, signal, async (mine) => {
      const { kind } = this.#target;
      const known = new Set(mine.filter((ref) => this.#stranger(ref) === undefined));
      if (kind === 'document') await writeDocument(this.#target, [...known], view, SKEW);
      return mine.map((ref) => ({ ...(this.#stranger(ref) ?? this.#cut(ref)), handle: ref.handle }));
    });
  }

  verify(refs: readonly Ref[], signal: AbortSignal): Promise<readonly Verdict[]> {
    return this.#target.call('verify', refs, signal, async (mine) =>
      mine.map((ref) => ({ ...(this.#stranger(ref) ?? this.#look(ref)), handle: ref.handle })),
    );
  }

  reap(
    refs: readonly Ref[],
    signal: AbortSignal,
    view?: FenceView,
  ): Promise<readonly (Outcome & { readonly notBefore?: Date })[]> {
    return this.#target.call('reap', refs, signal, async (mine) => {
      const answers = mine.map((ref) => ({ ...(this.#stranger(ref) ?? this.#clean(ref)), handle: ref.handle }));
      // What is past its time falls out of the document.
      const { kind } = this.#target;
      if (kind === 'document' && answers.some((answer) => answer.ok && !('notBefore' in answer)))
        await writeDocument(this.#target, [], view, SKEW);
      return answers;
    });
  }

  list(signal: AbortSignal): Promise<readonly Found[]> {
    return this.#target.call('list', [], signal, async () => {
      const { system } = this.#target;
      return system.all().map(({ handle, grantId, installation }) => ({
        handle,
        grantId,
        installation,
        facts: { incarnation: system.incarnation },
      }));
    });
  }

  async hold(_signal: AbortSignal, beat?: Beat): Promise<Holder | null> {
    return this.#target.keepsRecord ? this.#target.system.hold(this.#installation, beat) : null;
  }

  check(_entitlement: unknown, signal: AbortSignal): Promise<readonly CheckStep[]> {
    return this.#target.call('guarantee', [], signal, async () => [{ step: 'reach', ok: true, says: 'It answers.' }]);
  }

  close(): Promise<void> {
    return Promise.resolve();
  }

  /** A ref that was made in another system than the one that stands here now. */
  #stranger({ facts }: Ref): { readonly ok: false; readonly error: ProviderError } | undefined {
    if (facts === null || facts['incarnation'] === this.#target.system.incarnation) return undefined;
    return { ok: false, error: new ProviderError('misconfigured', 'Another system stands behind this name.') };
  }

  #cut(ref: Ref): Outcome {
    const { kind, system } = this.#target;
    if (kind === 'expiry-only') return { ok: true, evidence: { cut: false, ends_at: ref.deadline.toISOString() } };
    if (kind !== 'document') system.cut(ref.handle);
    return { ok: true, evidence: { cut: true } };
  }

  #look(ref: Ref): Verdict {
    const { kind, system } = this.#target;
    const found = system.find(ref.handle);
    const over = this.#target.now() > (found?.endsAt ?? ref.deadline.getTime()) + SKEW;
    // Absence is proof only where a late mint can not follow.
    const refused = kind === 'expiry-only' ? over : over || system.refuses(ref.handle, found?.issuedAt);
    const named = [...system.written().values()].some(({ denied }) => ref.handle in denied);
    return {
      ok: true,
      contained: refused,
      clean: refused && found === undefined && !named,
      evidence: {
        incarnation: system.incarnation,
        seen: found === undefined ? 'absent' : over ? 'expired' : 'refused',
      },
    };
  }

  #clean(ref: Ref): Outcome & { readonly notBefore?: Date } {
    const { kind, reapDelayMillis, system } = this.#target;
    const from =
      kind === 'document' ? ref.deadline.getTime() + SKEW : (system.cutAt(ref.handle) ?? 0) + reapDelayMillis;
    if (this.#target.now() < from) return { ok: true, evidence: {}, notBefore: new Date(from) };
    system.remove(ref.handle);
    return { ok: true, evidence: { removed: true } };
  }
}

const able = { native_expiry: true, ends_sessions: true, enumerable: true, min_ttl_seconds: 1, max_ttl_seconds: 3_600 };
const guarantees: Readonly<Record<Kind, Guarantee>> = {
  handles: { ...able, revocation: 'immediate', says: 'It is cut at once.' },
  document: {
    ...able,
    revocation: 'propagating',
    propagation_seconds: 60,
    says: 'It is cut as soon as the document is seen everywhere.',
  },
  'expiry-only': { ...able, revocation: 'expiry-only', says: 'It can not be ended before its deadline.' },
  irrevocable: {
    ...able,
    native_expiry: false,
    revocation: 'irrevocable',
    says: 'Who has read the value knows it for ever.',
  },
};
