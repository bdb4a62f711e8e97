import { randomBytes } from 'node:crypto';
import type { AwsKeys, PolicyStatement, Role as AskedRole } from '../aws-account.ts';
import { documentOf } from '../aws-account.ts';
import type { Knobs, Write } from './knobs.ts';
import { Refusal } from './refusal.ts';

/** An inline policy as it was written, and when that decides and shows. */
interface Version {
  readonly document: string | undefined;
  readonly writtenAt: number;
  readonly effectiveAt: number;
}

export interface Role {
  readonly name: string;
  readonly arn: string;
  /** Another one for each role of that name. */
  readonly id: string;
  readonly createdAt: number;
  readonly trust: string;
  readonly boundary: string | undefined;
  readonly maxSeconds: number;
  /** By name, oldest first. */
  readonly policies: Map<string, Version[]>;
  deleted: boolean;
}

export interface User {
  readonly kind: 'user';
  readonly name: string;
  readonly arn: string;
  readonly id: string;
  readonly keys: AwsKeys;
  readonly policy: string;
}

export interface Session {
  readonly kind: 'session';
  readonly role: Role;
  readonly name: string;
  readonly keys: AwsKeys;
  /** Whole seconds. */
  readonly issuedAt: number;
  readonly expiresAt: number;
  readonly sourceIdentity: string | undefined;
  readonly tags: ReadonlyMap<string, string>;
  /** Those tags that follow it into the next role. */
  readonly transitive: ReadonlySet<string>;
  readonly policy: string | undefined;
}

export type Principal = User | Session;

/** All inline policies of a role together, without whitespace. */
const INLINE_CHARACTERS = 10_240;

/** The account behind the stand-in. Times are of its own clock, in milliseconds. */
export class State {
  readonly id = '123456789012';
  readonly roles = new Map<string, Role>();
  readonly buckets = new Map<string, Set<string>>();
  readonly #principals = new Map<string, Principal>();
  readonly #knobs: Knobs;
  /** How far a test went ahead of the clock. */
  aheadMs = 0;

  constructor(knobs: Knobs) {
    this.#knobs = knobs;
  }

  now(): number {
    return Date.now() + this.#knobs.clockOffsetMs + this.aheadMs;
  }

  addRole({ name, trust = [], policies = {}, boundary, maxSeconds = 3600 }: AskedRole): Role {
    const own = new Map<string, Version[]>();
    const role: Role = {
      name,
      arn: `arn:aws:iam::${this.id}:role/${name}`,
      id: makeId('AROA'),
      createdAt: this.now(),
      trust: documentOf(trust),
      boundary: boundary && documentOf(boundary),
      maxSeconds,
      policies: own,
      deleted: false,
    };
    this.roles.set(name, role);
    for (const [policy, statements] of Object.entries(policies)) this.write(role, policy, documentOf(statements), 0);
    return role;
  }

  removeRole(role: Role): void {
    role.deleted = true;
    this.roles.delete(role.name);
  }

  roleCalled(name: string): Role {
    const role = this.roles.get(name);
    if (role === undefined) throw new Refusal(404, 'NoSuchEntity', `The role with name ${name} cannot be found.`);
    return role;
  }

  /** @param delayMs Until it decides; as the knob says where unsaid. */
  write(role: Role, policy: string, document: string | undefined, delayMs?: number): void {
    const write: Write = { role: role.name, policy, document };
    const versions = role.policies.get(policy) ?? [];
    if (document !== undefined) this.#refuseTooLong(role, policy, document);
    const writtenAt = this.now();
    versions.push({ document, writtenAt, effectiveAt: writtenAt + (delayMs ?? this.#knobs.propagationMs(write)) });
    role.policies.set(policy, versions);
  }

  #refuseTooLong(role: Role, policy: string, document: string): void {
    const others = [...role.policies].map(([name, versions]) =>
      name === policy ? '' : (versions.at(-1)?.document ?? ''),
    );
    const characters = [document, ...others].join('').replaceAll(/\s/g, '').length;
    if (characters <= INLINE_CHARACTERS) return;
    throw new Refusal(409, 'LimitExceeded', `Maximum policy size of 10240 bytes exceeded for role ${role.name}`);
  }

  /** The inline policies that decide now. */
  deciding(role: Role): ReadonlyMap<string, string> {
    return standing(role, ({ effectiveAt }) => effectiveAt <= this.now());
  }

  /** The inline policies as last written. */
  written(role: Role): ReadonlyMap<string, string> {
    return standing(role, () => true);
  }

  /** The inline policies that IAM shows now. */
  shown(role: Role): ReadonlyMap<string, string> {
    return standing(role, ({ writtenAt }) => writtenAt + this.#knobs.readLagMs <= this.now());
  }

  addUser(name: string, policy: readonly PolicyStatement[]): User {
    const keys = makeKeys('AKIA');
    const arn = `arn:aws:iam::${this.id}:user/${name}`;
    const user: User = { kind: 'user', name, arn, id: makeId('AIDA'), keys, policy: documentOf(policy) };
    this.#principals.set(keys.accessKeyId, user);
    return user;
  }

  addSession(session: Omit<Session, 'kind' | 'keys'>): Session {
    const keys = { ...makeKeys('ASIA'), sessionToken: randomBytes(200).toString('base64') };
    const added: Session = { ...session, kind: 'session', keys };
    this.#principals.set(keys.accessKeyId, added);
    return added;
  }

  /** By its access key. Its secret is not asked for: the signature is not looked at. */
  principal(accessKeyId: string): Principal | undefined {
    return this.#principals.get(accessKeyId);
  }
}

/** Of each name the newest of those versions that `counts`. */
function standing(role: Role, counts: (version: Version) => boolean): ReadonlyMap<string, string> {
  const found = new Map<string, string>();
  for (const [name, versions] of role.policies) {
    const document = versions.findLast(counts)?.document;
    if (document !== undefined) found.set(name, document);
  }
  return found;
}

function makeKeys(prefix: 'AKIA' | 'ASIA'): AwsKeys {
  return { accessKeyId: makeId(prefix), secretAccessKey: randomBytes(30).toString('base64') };
}

function makeId(prefix: string): string {
  return `${prefix}${randomBytes(9).toString('hex').toUpperCase().slice(0, 17)}`;
}
