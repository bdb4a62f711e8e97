import type { Provider, Secret, Session } from '../provider.ts';
import { ProviderError } from '../provider.ts';
import type { TargetDefinition } from './types.ts';

export interface TargetSessionsOptions {
  readonly providers: ReadonlyMap<string, Provider>;
  readonly installation: string;
  readonly secret: (target: string, reference: string) => Secret<string>;
  readonly log: (event: Readonly<Record<string, unknown>>, message: string) => void;
}

/** One provider session per target, made when first needed and made anew when the target's connection changes. */
export class TargetSessions {
  readonly #options: TargetSessionsOptions;
  readonly #open = new Map<string, { readonly connection: string; readonly session: Session }>();

  constructor(options: TargetSessionsOptions) {
    this.#options = options;
  }

  get(target: TargetDefinition): Session {
    const connection = JSON.stringify([target.provider, target.connection]);
    const open = this.#open.get(target.name);
    if (open?.connection === connection) return open.session;
    const provider = this.#options.providers.get(target.provider);
    if (provider === undefined) throw new ProviderError('misconfigured', `No provider ${target.provider} is loaded.`);
    const session = provider.connect(target.connection, {
      target: target.name,
      installation: this.#options.installation,
      secret: (reference) => this.#options.secret(target.name, reference),
      log: (event, message) => this.#options.log({ target: target.name, ...event }, message),
    });
    this.#open.set(target.name, { connection, session });
    // Calls in flight on the old session end with it and are tried again on the new one.
    void open?.session.close();
    return session;
  }

  async close(): Promise<void> {
    await Promise.all([...this.#open.values()].map(({ session }) => session.close()));
    this.#open.clear();
  }
}
