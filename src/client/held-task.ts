import type { ApprovalOptions } from './approval.ts';
import type { Ask, Credential, Ended, GrantBody, Issued, MintedBody, TaskBody } from './bodies.ts';
import type { MayflyClient } from './index.ts';
import { ProblemError } from './problem.ts';
import { Renewal } from './renewal.ts';

interface Waiting {
  /** Seconds to wait until what ends is contained. */
  readonly wait?: number;
}

export interface HoldOptions {
  /** False: it ends at its first deadline. */
  readonly renew?: boolean;
  /** A new secret, where the target could not extend the one in hand. */
  readonly onCredential?: (credential: Credential) => void;
  /** It will end at its deadline: policy, the task or its time said no. */
  readonly onLost?: (error: unknown, deadline: string) => void;
  /** Where policy wants it approved first: how long to wait for that, and who is told. */
  readonly approval?: ApprovalOptions;
}

/** A task that ends with its scope: `await using` completes it, also where the scope is left by an error. */
export class HeldTask implements AsyncDisposable {
  readonly task: TaskBody;
  readonly #client: MayflyClient;
  readonly #grants: HeldGrant[] = [];
  #ended = false;

  constructor(client: MayflyClient, task: TaskBody) {
    this.#client = client;
    this.task = task;
  }

  async issue(ask: Ask, options: HoldOptions = {}): Promise<HeldGrant> {
    const grant = new HeldGrant(this.#client, await this.#client.issue(this.task.id, ask, options.approval), options);
    this.#grants.push(grant);
    return grant;
  }

  /** Done: everything that came of it is taken back. */
  complete(options: Waiting = {}): Promise<Ended> {
    return this.#end(this.#client.complete(this.task.id, options));
  }

  /** Not done: the same, and the record says so. */
  cancel(options: Waiting = {}): Promise<Ended> {
    return this.#end(this.#client.cancel(this.task.id, options));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (!this.#ended) await unlessOver(this.complete());
  }

  async #end(ending: Promise<Ended>): Promise<Ended> {
    for (const grant of this.#grants) grant.stopRenewing();
    const ended = await ending;
    this.#ended = true;
    return ended;
  }
}

/** A credential that is renewed while its scope lasts, and released with it. */
export class HeldGrant implements AsyncDisposable {
  readonly #client: MayflyClient;
  readonly #renewal: Renewal | undefined;
  #grant: MintedBody;
  #credential: Credential;

  constructor(
    client: MayflyClient,
    { grant, credential }: Issued,
    { renew = true, onCredential, onLost }: HoldOptions,
  ) {
    this.#client = client;
    this.#grant = grant;
    this.#credential = credential;
    if (!renew) return;
    this.#renewal = new Renewal(client, grant, {
      onRenewed: (renewed) => {
        this.#grant = renewed.grant;
        if (renewed.credential === undefined) return;
        this.#credential = renewed.credential;
        onCredential?.(renewed.credential);
      },
      ...(onLost === undefined ? {} : { onLost }),
    });
  }

  /** As it was when last renewed. */
  get grant(): MintedBody {
    return this.#grant;
  }

  /** The one in force now. */
  get credential(): Credential {
    return this.#credential;
  }

  /** It ends at its deadline then. */
  stopRenewing(): void {
    this.#renewal?.stop();
  }

  async release(options: Waiting = {}): Promise<GrantBody> {
    this.stopRenewing();
    return await this.#client.release(this.#grant.id, options);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await unlessOver(this.release());
  }
}

/** Its deadline, its task's end or an operator may have been faster. */
async function unlessOver(ending: Promise<unknown>): Promise<void> {
  try {
    await ending;
  } catch (error) {
    if (!(error instanceof ProblemError && (error.is('task_ended') || error.is('grant_ended')))) throw error;
  }
}
