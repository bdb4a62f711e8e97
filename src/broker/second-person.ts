import { createHash, randomUUID } from 'node:crypto';
import type { Catalog } from '../catalog/types.ts';
import { MayflyError } from '../domain/errors.ts';
import type { FourEyesOperation } from '../domain/four-eyes.ts';
import type { Caller } from '../identity/types.ts';
import type { Transaction } from '../store/database.ts';
import { type AwaitsSecond, awaitSecond, holdAwaiting, markSeconded, type Person } from '../store/second-person.ts';
import type { BrokerDeps, CallContext } from './deps.ts';
import { operatorEvent } from './evidence.ts';

/** How long the first person's word holds. */
const HOLDS_MILLIS = 15 * 60_000;

/** What two people have to ask for. */
export interface ForTwo {
  readonly operation: FourEyesOperation;
  /** What it is about, for people. */
  readonly resource: string;
  /** All that was asked. JSON. */
  readonly said: readonly unknown[];
}

export type Agreed =
  /** Nothing was done: another operator has to ask for the very same. */
  | { readonly awaits: AwaitsSecond }
  /** To be done, in this transaction. @param first Who asked before. */
  | { readonly first: Person };

/**
 * Whether a second person asks. The first one's word is written down with its evidence and nothing is done; the very same by another
 * one, within a quarter of an hour, is. Of two second persons at once one is the second, and the other begins anew.
 * @throws MayflyError `second_person_needed` when the same person asks again.
 */
export async function agree(
  deps: Pick<BrokerDeps, 'catalog'>,
  tx: Transaction,
  person: Person,
  { operation, resource, said }: ForTwo,
  context: Pick<CallContext, 'requestId'>,
): Promise<Agreed> {
  const digest = digestOf(operation, said);
  const expiresAt = new Date(tx.now.getTime() + HOLDS_MILLIS);
  const asked: AwaitsSecond = { operation, digest, resource, person, askedAt: tx.now, expiresAt };
  const before = await holdAwaiting(tx, operation, digest);
  const standing = before !== undefined && before.expiresAt > tx.now ? before : undefined;
  if (standing === undefined) {
    // Two first persons at once: the store lets one in, and the other finds it here.
    const begun = await awaitSecond(tx, randomUUID(), asked);
    if (begun !== undefined) {
      const payload = { operation, digest: digest.toString('hex'), expires_at: expiresAt.toISOString() };
      tx.record(operatorEvent('operation.awaited', deps.catalog, context, person.name, { resource, payload }));
      return { awaits: begun };
    }
  }
  const first = standing ?? (await holdAwaiting(tx, operation, digest));
  if (first === undefined) throw new MayflyError('store_unavailable', 'Another operator asked for it at this moment.');
  if (first.person.issuer === person.issuer && first.person.subject === person.subject) throw samePerson(first);
  await markSeconded(tx, operation, digest, person.name);
  return { first: first.person };
}

/** An operator as its issuer knows it. @throws MayflyError `operator_only` for one whose source the catalog does not have. */
export function personOf({ trust }: Pick<Catalog, 'trust'>, caller: Caller): Person {
  if (caller.kind !== 'operator') throw new MayflyError('operator_only');
  const { operator: name } = caller;
  const source = trust.operators.find((one) => name.startsWith(`${one.name}:`));
  if (source === undefined) throw new MayflyError('operator_only');
  return { name, issuer: source.issuer, subject: name.slice(source.name.length + 1) };
}

/** Whether the catalog in force wants two people for it. */
export function takesTwo({ changeControl }: Pick<Catalog, 'changeControl'>, operation: FourEyesOperation): boolean {
  return changeControl.fourEyes.includes(operation);
}

function samePerson({ expiresAt }: AwaitsSecond): MayflyError {
  return new MayflyError(
    'second_person_needed',
    'You have asked for this: another operator has to ask for the very same.',
    {
      members: { expires_at: expiresAt.toISOString() },
    },
  );
}

function digestOf(operation: FourEyesOperation, said: readonly unknown[]): Buffer {
  return createHash('sha256')
    .update(JSON.stringify([operation, ...said]))
    .digest();
}
