import { z } from 'zod';
import { type CheckStep, type Minted, ProviderError, within } from '../../src/provider.ts';
import { Connection } from './connection.ts';
import { says } from './probe.ts';
import type { Target } from './target.ts';

const whoSchema = z.object({
  session: z.string(),
  effective: z.string(),
  oid: z.int().nullable(),
  cluster: z.string(),
  pid: z.int(),
});

/** Milliseconds in which a session that was cut off must not answer. A pooler lets its client wait for much longer. */
const silence = 1500;

/** The way of the agents to a target, where it is not the broker's own: a pooler may stand there. */
export class AgentEndpoint {
  readonly #target: Target;
  readonly #minted: Minted;
  #session: Connection | undefined;

  constructor(target: Target, minted: Minted) {
    this.#target = target;
    this.#minted = minted;
  }

  /**
   * Logs in as an agent would and looks who it is then. In a pool that logs in as one user for all, the server never
   * meets the minted role: no right is the granted one, and no end reaches the session.
   */
  async enter(steps: CheckStep[], signal: AbortSignal): Promise<void> {
    const { host, port, agent_endpoint: endpoint } = this.#target.config;
    if (endpoint === undefined || (endpoint.host === host && endpoint.port === port)) return;
    const at = `${endpoint.host}:${endpoint.port}`;
    try {
      this.#session = await this.#open(signal);
      const [row] = await this.#session.query(
        'asking who it is',
        `SELECT session_user::text AS session, current_user::text AS effective, pg_backend_pid() AS pid,
           (SELECT r.oid FROM pg_roles r WHERE r.rolname = session_user) AS oid,
           (SELECT c.system_identifier::text FROM pg_control_system() c) AS cluster`,
        [],
        signal,
      );
      const who = whoSchema.parse(row);
      const fault = this.#fault(who);
      const how = this.#session.isDirect(who.pid) ? 'directly' : 'through a pooler, as the minted role';
      steps.push({ step: 'agent_endpoint', ok: fault === null, says: `${at}: ${fault ?? `agents arrive ${how}`}` });
    } catch (error) {
      // The broker need not reach it. But where it is reached, agents must get in.
      const tried = error instanceof ProviderError && error.errorClass === 'retryable';
      steps.push({
        step: 'agent_endpoint',
        ok: tried,
        ...(tried ? { warns: true } : {}),
        says: `${at} ${tried ? 'could not be tried from here' : 'does not serve agents'}: ${says(error)}`,
      });
    }
  }

  /** After the end: neither the session from before nor a new one may be served there. */
  async left(steps: CheckStep[], signal: AbortSignal): Promise<void> {
    if (this.#session === undefined) return;
    const answered = await serves(this.#session, signal);
    const again = await this.#servesAgain(signal);
    const faults = [
      ...(answered ? ['a session from before is still served'] : []),
      ...(again ? ['a new login is still served'] : []),
    ];
    steps.push({
      step: 'agent_endpoint_ended',
      ok: faults.length === 0,
      says: faults.length === 0 ? 'no session is served at the endpoint of the agents' : faults.join(', and '),
    });
  }

  async close(): Promise<void> {
    await this.#session?.close();
  }

  #fault({ session, effective, oid, cluster }: z.infer<typeof whoSchema>): string | null {
    const { username } = this.#minted.secret.reveal();
    const { oid: minted, system_identifier: home } = this.#minted.facts;
    if (cluster !== home) {
      return `it leads to the cluster ${cluster}, not to ${String(home)}`;
    }
    if (session !== username || effective !== username || oid !== minted) {
      return (
        `who logs in as the minted role works as ${session} (a pool with a forced user): its rights are not the ` +
        'granted ones, and its sessions outlive the role. Let the pool log in as each client (no user= in its database line)'
      );
    }
    return null;
  }

  async #servesAgain(signal: AbortSignal): Promise<boolean> {
    let session: Connection;
    try {
      session = await this.#open(within(silence, signal));
    } catch {
      return false;
    }
    const served = await serves(session, signal);
    await session.close();
    return served;
  }

  #open(signal: AbortSignal): Promise<Connection> {
    const { host, port, database, username, password } = this.#minted.secret.reveal();
    const as = { host: String(host), port: Number(port), database: String(database) };
    const login = { ...as, user: String(username), password: String(password) };
    return Connection.open(this.#target.config, login, null, signal);
  }
}

async function serves(session: Connection, signal: AbortSignal): Promise<boolean> {
  return session.query('after the end', 'SELECT 1', [], within(silence, signal)).then(
    () => true,
    () => false,
  );
}
