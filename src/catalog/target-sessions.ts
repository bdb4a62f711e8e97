import type { Provider, Secret, Session } from '../provider.ts';
import { ProviderError } from '../provider.ts';
import type { TargetDefinition } from './types.ts';

export interface TargetSessionsOptions {
  readonly providers: ReadonlyMap<string, Provider>;
  readonly installation: string;
  readonly secret: (target: string, reference: string) => Secret<string>;
  readonly log: (event: Readonly<Record<string, unknown>>, message: string) => void;
}

/** Connections of one target that are kept: the active one, and those that older grants were made on. */
const KEPT = 4;

/** A provider session per target and connection, made when first needed. A changed connection leaves the one before to its work. */
export class TargetSessions {
  readonly #options: TargetSessionsOptions;
  /** Target → connection → session, the latest used last. */
  readonly #open = new Map<string, Map<string, Session>>();

  constructor(options: TargetSessionsOptions) {
    this.#options = options;
  }

  get(target: TargetDefinition): Session {
    const connection = JSON.stringify([target.provider, target.connection]);
    const sessions = this.#open.get(target.name) ?? new Map<string, Session>();
    const session = sessions.get(connection) ?? this.#connect(target);
    sessions.delete(connection);
    this.#open.set(target.name, sessions.set(connection, session));
    const [oldest] = sessions;
    if (sessions.size > KEPT && oldest !== undefined) {
      sessions.delete(oldest[0]);
      void oldest[1].close();
    }
    return session;
  }

  async close(): Promise<void> {
    await Promise.all([...this.#open.values()].flatMap((sessions) => [...sessions.values()].map((one) => one.close())));
    this.#open.clear();
  }

  #connect(target: TargetDefinition): Session {
    const provider = this.#options.providers.get(target.provider);
    if (provider === undefined) throw new ProviderError('misconfigured', `No provider ${target.provider} is loaded.`);
    return provider.connect(target.connection, {
      target: target.name,
      installation: this.#options.installation,
      secret: (reference) => this.#options.secret(target.name, reference),
      log: (event, message) => this.#options.log({ target: target.name, ...event }, message),
    });
  }
}
