import { inspect } from 'node:util';
import { Secret, type Session } from '../../../src/provider.ts';

/** All that a provider has let out: what it logged, answered, threw or printed. Scanned for what must not be in it. */
export class Notes {
  readonly #heard: { readonly where: string; readonly text: string; readonly withoutFacts: string }[] = [];
  readonly #secrets = new Set<string>();
  readonly #inFacts = new Set<string>();
  readonly #release: () => void;

  constructor() {
    this.#release = overhear((text) => this.hear('printed', text));
  }

  hear(where: string, said: unknown): void {
    const without = withoutFacts(said);
    // Hidden members too: a driver's error may hold the whole request.
    const text = shown(said);
    this.#heard.push({ where, text, withoutFacts: without === said ? text : shown(without) });
    if (typeof said !== 'string') this.#heard.push({ where, text: asJson(said), withoutFacts: asJson(without) });
  }

  mustHide(secret: string): void {
    // What is shorter stands anywhere by chance.
    if (secret.length >= 6) this.#secrets.add(secret);
  }

  /** It may stand in facts, which are kept for the broker alone, and nowhere else. */
  mustHideButInFacts(value: string): void {
    if (value.length >= 6) this.#inFacts.add(value);
  }

  /** Where a secret was let out, in clear or in an encoding that everybody can undo. Without the secret. */
  leaks(): readonly string[] {
    const forms = [...this.#secrets].flatMap(formsOf);
    const ids = [...this.#inFacts].flatMap(formsOf);
    const found = this.#heard.filter(
      ({ text, withoutFacts: rest }) =>
        forms.some((form) => text.includes(form)) || ids.some((form) => rest.includes(form)),
    );
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

function shown(said: unknown): string {
  return typeof said === 'string' ? said : inspect(said, { depth: 12, showHidden: true, maxStringLength: null });
}

/** An answer, or each of a list of answers, without the member that is `facts`. */
function withoutFacts(said: unknown): unknown {
  if (Array.isArray(said)) return said.some(hasFacts) ? said.map(withoutFacts) : said;
  return hasFacts(said) ? { ...said, facts: null } : said;
}

function hasFacts(said: unknown): said is { readonly facts: unknown } {
  return typeof said === 'object' && said !== null && 'facts' in said;
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
