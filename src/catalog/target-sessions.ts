import type { Provider, Secret, Session } from '../provider.ts';
import { ProviderError } from '../provider.ts';
import type { TargetDefinition } from './types.ts';

export interface TargetSessionsOptions {
  readonly providers: ReadonlyMap<string, Provider>;
  readonly installation: string;
  readonly secret: (target: string, reference: string) => Secret<string>;
  readonly log: (event: Readonly<Record<string, unknown>>, message: string) => void;
  /** Whether any connection of that target can not log in, or not keep its login. */
  readonly troubled?: (target: string, is: boolean) => void;
}

/** Connections of one target that are kept: the active one, and those that older grants were made on. */
const KEPT = 4;

/** A provider session per target and connection, made when first needed. A changed connection leaves the one before to its work. */
export class TargetSessions {
  readonly #options: TargetSessionsOptions;
  /** Target → connection → session, the latest used last. */
  readonly #open = new Map<string, Map<string, Session>>();

  /** Those that can not log in. */
  readonly #troubled = new Map<string, Set<string>>();

  constructor(options: TargetSessionsOptions) {
    this.#options = options;
  }

  get(target: TargetDefinition): Session {
    const connection = JSON.stringify([target.provider, target.connection]);
    const sessions = this.#open.get(target.name) ?? new Map<string, Session>();
    const session = sessions.get(connection) ?? this.#connect(target, connection);
    sessions.delete(connection);
    this.#open.set(target.name, sessions.set(connection, session));
    const [oldest] = sessions;
    if (sessions.size > KEPT && oldest !== undefined) {
      sessions.delete(oldest[0]);
      void oldest[1].close();
      this.#trouble(target.name, oldest[0], false);
    }
    return session;
  }

  async close(): Promise<void> {
    await Promise.all([...this.#open.values()].flatMap((sessions) => [...sessions.values()].map((one) => one.close())));
    this.#open.clear();
  }

  #trouble(target: string, connection: string, is: boolean): void {
    const those = this.#troubled.get(target) ?? new Set();
    this.#troubled.set(target, those);
    if (is) those.add(connection);
    else those.delete(connection);
    this.#options.troubled?.(target, those.size > 0);
  }

  #connect(target: TargetDefinition, connection: string): Session {
    const provider = this.#options.providers.get(target.provider);
    if (provider === undefined) throw new ProviderError('misconfigured', `No provider ${target.provider} is loaded.`);
    return provider.connect(target.connection, {
      target: target.name,
      installation: this.#options.installation,
      secret: (reference) => this.#options.secret(target.name, reference),
      log: (event, message) => this.#options.log({ target: target.name, ...event }, message),
      troubled: (says) => this.#trouble(target.name, connection, says !== null),
    });
  }
}
