import {
  AgentKey,
  type Delegation,
  type MayflyClient,
  type TaskBody,
  type TaskStanding,
} from '../../src/client/index.ts';
import { ask, type Reply } from './ask.ts';
import { type Change, forge } from './forge.ts';
import type { House, SignOptions } from './house.ts';

/** To whom a task goes. */
export interface Named {
  readonly workload: string;
  readonly key: Pick<AgentKey, 'thumbprint'>;
}

/** One agent with a key of its own, and what it holds. */
export class Agent {
  readonly house: House;
  readonly workload: string;
  readonly key: AgentKey;

  constructor(house: House, workload: string, key: AgentKey) {
    this.house = house;
    this.workload = workload;
    this.key = key;
  }

  static async make(house: House, workload = 'agent-recon'): Promise<Agent> {
    return new Agent(house, workload, await AgentKey.make());
  }

  client(url = this.house.url): MayflyClient {
    // A proof is for the public URL, whichever replica is asked.
    const proven = this.house.client(this.workload, this.house.url, this.key);
    return url === this.house.url ? proven : this.house.client(this.workload, url, this.key);
  }

  /** A call with its token and a proof. @param url Which replica. */
  async call(method: string, path: string, body?: object, url = this.house.url): Promise<Reply> {
    const token = await this.house.token(this.workload);
    const dpop = await this.key.prove(method, `${this.house.url}${path}`, token);
    return await ask(url, method, path, { token, headers: { dpop }, ...(body && { body }) });
  }

  async open(options: Partial<SignOptions> = {}): Promise<TaskBody> {
    const request = await this.house.sign({
      ...{ workload: this.workload, keyThumbprint: this.key.thumbprint, maxDepth: 2, phase: 'execute' },
      ...options,
    });
    return (await this.client().openTask(request)).task;
  }

  /** What it signs to give a part of its task to another. */
  async offerOf(parent: TaskStanding, to: Agent, more: Partial<Delegation> = {}): Promise<string> {
    return await this.key.delegate({
      ...{ broker: this.house.url, parent: parent.id, workload: to.workload, keyThumbprint: to.key.thumbprint },
      ...{ purpose: parent.purpose, entitlements: ['ledger-db/read-invoices'], notAfter: new Date(parent.not_after) },
      ...more,
    });
  }

  async delegate(parent: TaskStanding, to: Agent, more: Partial<Delegation> = {}): Promise<TaskStanding> {
    return (await this.client().delegate(parent.id, await this.offerOf(parent, to, more))).task;
  }

  /** Delegated and claimed. */
  async beget(parent: TaskStanding, to: Agent, more: Partial<Delegation> = {}): Promise<TaskBody> {
    const { id } = await this.delegate(parent, to, more);
    return (await to.client().claim(id)).task;
  }
}

/** An event that the orchestrator signs. */
export async function eventOf(
  house: House,
  taskId: string,
  said: Readonly<Record<string, unknown>>,
  change: Change = () => {},
): Promise<string> {
  return forge(house.devDir, 'orchestrator', await house.sign(), (draft) => {
    const { iss, aud, jti, iat, exp } = draft.claims;
    draft.header['typ'] = 'agent-task-event+jwt';
    draft.claims = { iss, aud, jti, iat, exp, task_id: taskId, ...said };
    change(draft);
  });
}

export const outcome = ({ status, body }: Reply) => [status, body['code']];

/** A delegation that the orchestrator signs. */
export async function delegationByIssuer(
  house: House,
  parent: TaskStanding,
  to: Named,
  change: Change = () => {},
): Promise<string> {
  const signed = await house.sign({ workload: to.workload, keyThumbprint: to.key.thumbprint, purpose: parent.purpose });
  return forge(house.devDir, 'orchestrator', signed, (draft) => {
    draft.header['typ'] = 'agent-delegation+jwt';
    const { id: _, ...task } = Object(draft.claims['task']);
    Object.assign(draft.claims, { parent_task_id: parent.id, task });
    change(draft);
  });
}
