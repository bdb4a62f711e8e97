/** One request, as its caller meant it. */
export interface Call {
  readonly service: 'iam' | 's3' | 'sts';
  /** As policies name it, without the service: `PutRolePolicy`. */
  readonly action: string;
  /** Of the role that it is about. */
  readonly role?: string;
  /** Of the inline policy that it is about. */
  readonly policy?: string;
  /** The access key that signed it. */
  readonly accessKeyId: string;
}

/** What becomes of a request instead of its answer. `done`: only after it was done, so that its caller does not know. */
export type Fault =
  | { readonly kind: 'error'; readonly status: number; readonly code: string; readonly done?: boolean }
  /** No answer at all, ever. */
  | { readonly kind: 'hang'; readonly done?: boolean }
  /** The connection ends. */
  | { readonly kind: 'drop'; readonly done?: boolean }
  /** Success, with another body. */
  | { readonly kind: 'garbled'; readonly body: string; readonly done?: boolean }
  /** It is not done before that: what its caller gave up long ago may still come to pass. */
  | { readonly kind: 'held'; readonly until: Promise<unknown> }
  /** Its own answer, that much later. */
  | { readonly kind: 'slow'; readonly ms: number };

/** Of an inline policy of a role, or its deletion. */
export interface Write {
  readonly role: string;
  readonly policy: string;
  /** Undefined for a deletion. */
  readonly document: string | undefined;
}

/** A token bucket, as AWS has for each API and account. */
export interface Rate {
  readonly perSecond: number;
  readonly burst: number;
  /** `Throttling` where unsaid; some services say `ThrottlingException`. */
  readonly code?: string;
}

/** What a test may turn while the server runs. */
export interface Knobs {
  /** Of the server's clock to this machine's: in its `Date`, in signatures, sessions and conditions. */
  clockOffsetMs: number;
  /** Until this write decides requests. The default: at once. */
  propagationMs: (write: Write) => number;
  /** That long, `Get` and `List` answer what was before a write. */
  readLagMs: number;
  /** IAM's and STS's, each with a bucket of its own. */
  readonly rates: { iam?: Rate; sts?: Rate };
  /** What session policy and tags may take, packed. AWS says no number. */
  packedBytes: number;
  fault: (call: Call) => Fault | undefined;
}

export function defaultKnobs(): Knobs {
  return {
    clockOffsetMs: 0,
    propagationMs: () => 0,
    readLagMs: 0,
    rates: {},
    packedBytes: 2048,
    fault: () => undefined,
  };
}

/** Takes from one bucket at a time; answers whether there was something in it. */
export class Buckets {
  readonly #left = new Map<string, { tokens: number; at: number }>();

  take(name: string, { perSecond, burst }: Rate): boolean {
    const now = performance.now();
    const { tokens, at } = this.#left.get(name) ?? { tokens: burst, at: now };
    const filled = Math.min(burst, tokens + ((now - at) / 1000) * perSecond);
    this.#left.set(name, { tokens: filled < 1 ? filled : filled - 1, at: now });
    return filled >= 1;
  }
}
