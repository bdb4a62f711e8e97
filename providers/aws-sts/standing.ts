import {
  DeleteRolePolicyCommand,
  GetRolePolicyCommand,
  ListRolePoliciesCommand,
  PutRolePolicyCommand,
} from '@aws-sdk/client-iam';
import { setTimeout as sleep } from 'node:timers/promises';
import { ProviderError } from '../../src/provider.ts';
import { ask } from './clients.ts';
import { epochOf, type FenceDocument, isInOurName, policyName, read } from './document.ts';
import { AwsError } from './errors.ts';
import { type Account, nameOf } from './account.ts';

/** Policies that are nobody's fence are read anew after that: only how long they are counts. */
const othersMillis = 60_000;
/** What IAM shows may be older than what was written. */
const readBackMillis = 3_000;

export interface StandingFence {
  readonly text: string;
  readonly says: FenceDocument;
}

/** What stands at a role now, as IAM says: it may be some seconds old. */
export interface Standing {
  readonly fences: ReadonlyMap<bigint, StandingFence>;
  /** In our name, and nothing that we would have written: names. */
  readonly strange: readonly string[];
  /** Characters of all inline policies but the fences. Whitespace is not counted. */
  readonly others: number;
}

/** The inline policies of one role. */
export class InlinePolicies {
  readonly #target: Account;
  readonly #role: string;
  #others: { readonly names: string; readonly characters: number; readonly readAt: number } | undefined;

  constructor(target: Account, role: string) {
    this.#target = target;
    this.#role = nameOf(role);
  }

  /** @throws AwsError */
  async look(signal: AbortSignal): Promise<Standing> {
    const names = await this.#list(signal);
    const fences = new Map<bigint, StandingFence>();
    const strange: string[] = [];
    for (const name of names.filter(isInOurName)) {
      const text = await this.#get(name, signal);
      if (text === undefined) continue;
      const [epoch, says] = [epochOf(name), read(text)];
      // Another installation's list does us no harm. Its cut would deny whatever it does not know.
      const theirs = says !== null && says.installation !== this.#target.mark;
      if (epoch === null || says === null || (theirs && says.cut !== null)) strange.push(name);
      else fences.set(epoch, { text, says });
    }
    const own = names.filter((name) => !isInOurName(name) || strange.includes(name));
    return { fences, strange, others: await this.#sizeOf(own, signal) };
  }

  /** @throws AwsError; one that was not `refused` may still come to pass. */
  async put(epoch: bigint, document: string, signal: AbortSignal): Promise<void> {
    const asked = { RoleName: this.#role, PolicyName: policyName(epoch), PolicyDocument: document };
    const command = new PutRolePolicyCommand(asked);
    try {
      await ask('writing the fence', () => this.#target.clients.iam.send(command, { abortSignal: signal }));
    } catch (error) {
      // Of the quota too much was thought to be left.
      if (error instanceof AwsError && error.code.startsWith('LimitExceeded')) this.#others = undefined;
      throw error;
    }
  }

  /** Waits until IAM shows it. @throws ProviderError `retryable` where it does not yet. */
  async readBack(epoch: bigint, document: string, signal: AbortSignal): Promise<void> {
    const until = performance.now() + readBackMillis;
    for (let wait = 50; ; wait = Math.min(wait * 2, 500)) {
      if ((await this.#get(policyName(epoch), signal)) === document) return;
      if (performance.now() > until)
        throw new ProviderError('retryable', 'writing the fence: IAM does not show it yet');
      await sleep(wait, undefined, { signal });
    }
  }

  /** Already gone is as good. @throws AwsError */
  async remove(epoch: bigint, signal: AbortSignal): Promise<void> {
    const command = new DeleteRolePolicyCommand({ RoleName: this.#role, PolicyName: policyName(epoch) });
    try {
      await ask('removing an old fence', () => this.#target.clients.iam.send(command, { abortSignal: signal }));
    } catch (error) {
      if (!(error instanceof AwsError && error.code.startsWith('NoSuchEntity'))) throw error;
    }
  }

  async #list(signal: AbortSignal): Promise<readonly string[]> {
    const names: string[] = [];
    let marker: string | undefined;
    do {
      const command = new ListRolePoliciesCommand({
        RoleName: this.#role,
        ...(marker !== undefined && { Marker: marker }),
      });
      const page = await ask('reading the policies of the role', () =>
        this.#target.clients.iam.send(command, { abortSignal: signal }),
      );
      names.push(...(page.PolicyNames ?? []));
      marker = page.IsTruncated === true ? page.Marker : undefined;
    } while (marker !== undefined);
    return names;
  }

  async #get(name: string, signal: AbortSignal): Promise<string | undefined> {
    const command = new GetRolePolicyCommand({ RoleName: this.#role, PolicyName: name });
    try {
      const { PolicyDocument } = await ask('reading a policy of the role', () =>
        this.#target.clients.iam.send(command, { abortSignal: signal }),
      );
      return decodeURIComponent(PolicyDocument ?? '');
    } catch (error) {
      // It was listed, and somebody has removed it since; a role that is gone was not listed.
      if (error instanceof AwsError && error.code.startsWith('NoSuchEntity')) return undefined;
      throw error;
    }
  }

  async #sizeOf(own: readonly string[], signal: AbortSignal): Promise<number> {
    const names = own.join('\n');
    const known = this.#others;
    if (known?.names === names && performance.now() - known.readAt < othersMillis) return known.characters;
    const texts = await Promise.all(own.map((name) => this.#get(name, signal)));
    const characters = texts.reduce((sum, text) => sum + (text ?? '').replace(/\s/g, '').length, 0);
    this.#others = { names, characters, readAt: performance.now() };
    return characters;
  }
}
