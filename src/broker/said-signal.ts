import { createHash } from 'node:crypto';
import type { Catalog } from '../catalog/types.ts';
import { type SignalKind, userSubject, workloadSubject } from '../domain/signal.ts';
import type { GrantsOf } from '../store/drift.ts';
import type { SignalPlace } from '../store/signals.ts';
import type { TasksOf } from '../store/suspensions.ts';

/** Whom or what a signal is about, in the source's words. */
export type SaidSubject =
  | { readonly workload: string }
  /** @param issuer URL or name of a task issuer. */
  | { readonly issuer: string; readonly user: string }
  | 'all'
  | { readonly environment: string }
  | { readonly target: string };

/** One that says something. */
export interface SaidWord {
  readonly kind: SignalKind;
  /** The source's own. */
  readonly id: string;
  readonly about: SaidSubject;
  /** Which of several incidents or freezes there; else empty. */
  readonly name: string;
  readonly value: string;
  readonly occurredAt: Date;
  readonly expiresAt: Date | null;
  readonly reason: string | null;
}

/** Or one that only says that the source is alive. */
export type SaidSignal = SaidWord | { readonly kind: 'heartbeat'; readonly id: string; readonly occurredAt: Date };

/** What is said again must be the same. */
export function bodyDigest({ kind, about, name, value, occurredAt, expiresAt, reason }: SaidWord): Buffer {
  const body = [kind, about, name, value, occurredAt.toISOString(), expiresAt?.toISOString() ?? null, reason];
  return createHash('sha256').update(JSON.stringify(body)).digest();
}

type Known = Pick<Catalog, 'trust' | 'targets'>;

/** Where it stands. Undefined: the catalog knows nothing of the kind. */
export function placeOf(catalog: Known, { kind, about, name }: SaidWord): SignalPlace | undefined {
  const subject = subjectOf(catalog, about);
  return subject === undefined ? undefined : { kind, subject, name };
}

function subjectOf({ trust, targets }: Known, about: SaidSubject): string | undefined {
  if (about === 'all') return about;
  if ('workload' in about) {
    const known = trust.workloadSources.some(({ name }) => about.workload.startsWith(`${name}:`));
    return known ? workloadSubject(about.workload) : undefined;
  }
  if ('issuer' in about) {
    const issuer = [...trust.taskIssuers, ...trust.tokenIssuers].find((one) =>
      [one.name, one.issuer].includes(about.issuer),
    );
    return issuer && userSubject(issuer.issuer, about.user);
  }
  if ('target' in about) return targets.has(about.target) ? `target:${about.target}` : undefined;
  const known = [...targets.values()].some(({ environment }) => environment === about.environment);
  return known ? `environment:${about.environment}` : undefined;
}

/** Whose grants, and whose tasks, a subject is about. Tasks: only of somebody. */
export function reachOf(
  { targets }: Pick<Catalog, 'targets'>,
  subject: string,
): { readonly grants: GrantsOf; readonly tasks: TasksOf | null } {
  const colon = subject.indexOf(':');
  const [what, rest] = [subject.slice(0, Math.max(0, colon)), subject.slice(colon + 1)];
  switch (what) {
    case 'workload': {
      const at = rest.indexOf(':');
      const workload = { source: rest.slice(0, at), subject: rest.slice(at + 1) };
      return { grants: { workload: rest }, tasks: { workload } };
    }
    case 'user': {
      const at = rest.indexOf(' ');
      const user = { issuer: rest.slice(0, at), subject: rest.slice(at + 1) };
      return { grants: user, tasks: user };
    }
    case 'target':
      return { grants: { targets: [rest] }, tasks: null };
    case 'environment': {
      const within = [...targets.values()].filter(({ environment }) => environment === rest);
      return { grants: { targets: within.map(({ name }) => name) }, tasks: null };
    }
    default:
      return { grants: { all: true }, tasks: null };
  }
}
