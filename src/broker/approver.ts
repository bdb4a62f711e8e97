import type { Trust } from '../catalog/types.ts';
import { MayflyError } from '../domain/errors.ts';
import type { Workload } from '../domain/task.ts';

/** Somebody who wants it: on whose behalf a task is, by whose word, and who acts. */
export interface Party {
  readonly issuer: string;
  readonly subject: string;
  readonly workload: Workload;
}

/**
 * Nobody approves what they asked for themselves. The subjects of a task and of all above it are compared with the operator in the
 * operator's own terms, which the task's issuer says (`subjects`), and so are the agents'; without letter case, since issuers differ in that.
 * @param operator `<source>:<subject>`
 * @throws MayflyError `approver_is_party`, `approver_unmapped`: who can not be compared is refused.
 */
export function requireOther(trust: Trust, operator: string, parties: readonly Party[]): void {
  const colon = operator.indexOf(':');
  const own = { source: operator.slice(0, colon), subject: operator.slice(colon + 1) };
  let unmapped: Party | undefined;
  for (const party of parties) {
    // The agent too: an issuer may name it as it names people. No issuer is one of operators and of workloads, and the same name at both
    // is still taken for the same party.
    const names = [party.subject, party.workload.subject].flatMap((subject) =>
      namesOf(trust, party.issuer, subject, own.source),
    );
    if (names.some((name) => isSame(name, own.subject))) throw new MayflyError('approver_is_party');
    // An agent on its own behalf is nobody that an operator could be.
    if (party.subject !== party.workload.subject && !isMapped(trust, party, own.source)) unmapped ??= party;
  }
  if (unmapped !== undefined)
    throw new MayflyError(
      'approver_unmapped',
      `Nothing says who ${unmapped.subject} is among the operators of ${own.source}.`,
    );
}

/** What each entry of an issuer says of a source of operators. */
function mappingsOf(trust: Trust, url: string, source: string) {
  const issuers = [...trust.taskIssuers, ...trust.tokenIssuers].filter(({ issuer }) => issuer === url);
  return issuers.map(({ subjects = [] }) => subjects.find(({ operators }) => operators === source));
}

/** All that a subject may be called at a source of operators, its own name among it; also where entries of its issuer disagree. */
function namesOf(trust: Trust, issuer: string, subject: string, source: string): readonly string[] {
  const mapped = mappingsOf(trust, issuer, source).flatMap((mapping) =>
    mapping !== undefined && subject.startsWith(mapping.prefix) ? [subject.slice(mapping.prefix.length)] : [],
  );
  return [subject, ...mapped];
}

/** Whether it is known who the subject is at a source of operators. Two entries of one issuer that disagree say nothing. */
function isMapped(trust: Trust, { issuer, subject }: Party, source: string): boolean {
  const mappings = mappingsOf(trust, issuer, source);
  const [first] = mappings;
  if (first === undefined || mappings.some((mapping) => mapping?.prefix !== first.prefix)) return false;
  return subject.startsWith(first.prefix) && subject.length > first.prefix.length;
}

function isSame(one: string, other: string): boolean {
  const plain = (text: string) => text.normalize('NFKC').toLowerCase();
  return plain(one) === plain(other);
}
