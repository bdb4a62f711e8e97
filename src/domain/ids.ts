import { randomUUID } from 'node:crypto';

declare const brand: unique symbol;
type Branded<Name extends string> = string & { readonly [brand]: Name };

/** A bare UUIDv7, as stored. The wire adds a prefix that says what it names (`task_…`). */
export type TaskId = Branded<'task'>;
export type GrantId = Branded<'grant'>;
export type RevocationId = Branded<'revocation'>;
export type DecisionId = Branded<'decision'>;
export type EventId = Branded<'event'>;
export type KillId = Branded<'kill'>;
export type ApprovalId = Branded<'approval'>;
export type SignalId = Branded<'signal'>;

type IdKinds = {
  task: TaskId;
  grt: GrantId;
  rev: RevocationId;
  dec: DecisionId;
  evt: EventId;
  kill: KillId;
  apr: ApprovalId;
  sig: SignalId;
};
export type IdPrefix = keyof IdKinds;

const UUID = '[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}';
const WIRE_ID = new RegExp(`^([a-z]+)_(${UUID})$`);

/** Makes an id for a new thing. Injected, so that a test can hold it. */
export interface Ids {
  next<P extends IdPrefix>(prefix: P): IdKinds[P];
}

/**
 * A UUIDv7 (RFC 9562 §5.7): 48 bits of Unix milliseconds, then 74 random bits.
 * @param millis Unix time in milliseconds.
 */
export function uuidv7(millis: number = Date.now()): string {
  // A version 4 with its first 48 bits and its version replaced: Node keeps entropy for those, a call of its own costs ten times as much.
  const random = randomUUID();
  const time = millis.toString(16).padStart(12, '0');
  return `${time.slice(0, 8)}-${time.slice(8)}-7${random.slice(15)}`;
}

export const randomIds: Ids = {
  next: <P extends IdPrefix>(_prefix: P): IdKinds[P] => uuidv7() as IdKinds[P],
};

/** `task_0190…`: how an id is written in paths, bodies and logs. */
export function wireId<P extends IdPrefix>(prefix: P, id: IdKinds[P]): string {
  return `${prefix}_${id}`;
}

/** The id behind `task_0190…`, or undefined when the text is not exactly such an id of that kind. */
export function parseWireId<P extends IdPrefix>(prefix: P, text: string): IdKinds[P] | undefined {
  const match = WIRE_ID.exec(text);
  return match?.[1] === prefix ? (match[2] as IdKinds[P]) : undefined;
}
