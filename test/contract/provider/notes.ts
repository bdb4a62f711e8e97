import { inspect } from 'node:util';
import { Secret, type Session } from '../../../src/provider.ts';

/** All that a provider has let out: what it logged, answered, threw or printed. Scanned for what must not be in it. */
export class Notes {
  readonly #heard: { readonly where: string; readonly text: string }[] = [];
  readonly #secrets = new Set<string>();
  readonly #release: () => void;

  constructor() {
    this.#release = overhear((text) => this.hear('printed', text));
  }

  hear(where: string, said: unknown): void {
    // Hidden members too: a driver's error may hold the whole request.
    const text =
      typeof said === 'string' ? said : inspect(said, { depth: 12, showHidden: true, maxStringLength: null });
    this.#heard.push({ where, text });
    if (typeof said !== 'string') this.#heard.push({ where, text: asJson(said) });
  }

  mustHide(secret: string): void {
    // What is shorter stands anywhere by chance.
    if (secret.length >= 6) this.#secrets.add(secret);
  }

  /** Where a secret was let out, in clear or in an encoding that everybody can undo. Without the secret. */
  leaks(): readonly string[] {
    const forms = [...this.#secrets].flatMap(formsOf);
    const found = this.#heard.filter(({ text }) => forms.some((form) => text.includes(form)));
    return [...new Set(found.map(({ where }) => where))];
  }

  /** How much was listened to: a scan of nothing shows nothing. */
  get size(): number {
    return this.#heard.length;
  }

  stop(): void {
    this.#release();
  }
}

/** The same session; what its calls answer or throw is noted. */
export function noted(session: Session, notes: Notes): Session {
  return new Proxy(session, {
    get: (target, name) => {
      const member: unknown = Reflect.get(target, name, target);
      if (typeof member !== 'function') return member;
      return (...args: readonly unknown[]): unknown => {
        const answer: unknown = Reflect.apply(member, target, args);
        if (!(answer instanceof Promise)) return answer;
        return answer.then(
          (said: unknown) => {
            notes.hear(`an answer of ${String(name)}`, said);
            return said;
          },
          (error: unknown) => {
            notes.hear(`an error of ${String(name)}`, error);
            throw error;
          },
        );
      };
    },
  });
}

/** In clear, in a URL, in hex, and in base64 wherever it begins in what was encoded (`user:secret`). */
function formsOf(secret: string): readonly string[] {
  const bytes = Buffer.from(secret);
  const within64 = [0, 1, 2].map((before) => {
    const text = Buffer.concat([Buffer.alloc(before), bytes])
      .toString('base64')
      .replace(/=+$/, '');
    // What its neighbours have a part in is left out.
    return text.slice([0, 2, 3][before], (before + bytes.length) % 3 === 0 ? undefined : -1);
  });
  return [secret, encodeURIComponent(secret), bytes.toString('hex'), ...within64];
}

function asJson(said: unknown): string {
  try {
    return JSON.stringify(said, (_key, value: unknown) => (typeof value === 'bigint' ? String(value) : value)) ?? '';
  } catch {
    // It refers to itself: `inspect` has seen it all.
    return '';
  }
}

/** What is printed meanwhile is heard, and printed. Answers how to stop listening. */
function overhear(hear: (text: string) => void): () => void {
  const ways = ['log', 'info', 'warn', 'error', 'debug'] as const;
  const consoles = ways.map((way) => [way, console[way]] as const);
  for (const [way, print] of consoles) {
    console[way] = (...said: unknown[]) => {
      hear(said.map((each) => (typeof each === 'string' ? each : inspect(each, { depth: 12 }))).join(' '));
      print(...said);
    };
  }
  const streams = [process.stdout, process.stderr].map((stream) => {
    const write: unknown = Reflect.get(stream, 'write');
    const heard = (...args: readonly unknown[]): unknown => {
      if (typeof args[0] === 'string') hear(args[0]);
      return typeof write === 'function' && Reflect.apply(write, stream, args);
    };
    Object.assign(stream, { write: heard });
    return () => Object.assign(stream, { write });
  });
  return () => {
    for (const [way, print] of consoles) console[way] = print;
    for (const restore of streams) restore();
  };
}

/** The leaves of a credential, for a driver that has nothing in it to show. */
export function reveal(secret: unknown): Readonly<Record<string, unknown>> {
  if (!(secret instanceof Secret)) throw new Error('mint answered `secret` that is no Secret');
  const value: unknown = secret.reveal();
  if (typeof value !== 'object' || value === null) throw new Error('what mint keeps secret is no object');
  return Object.fromEntries(Object.entries(value));
}
