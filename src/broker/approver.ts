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
 * operator's own terms, which the task's issuer says (`subjects`); without letter case, since issuers differ in that.
 * @param operator `<source>:<subject>`
 * @throws MayflyError `approver_is_party`, `approver_unmapped`: who can not be compared is refused.
 */
export function requireOther(trust: Trust, operator: string, parties: readonly Party[]): void {
  const colon = operator.indexOf(':');
  const own = { source: operator.slice(0, colon), subject: operator.slice(colon + 1) };
  let unmapped: Party | undefined;
  for (const party of parties) {
    // No issuer is one of operators and of workloads. The same name at both is still taken for the same party.
    if (isSame(party.workload.subject, own.subject)) throw new MayflyError('approver_is_party');
    if (party.subject === party.workload.subject) continue;
    const subject = asOperator(trust, party, own.source);
    if (subject === undefined) unmapped ??= party;
    else if (isSame(subject, own.subject)) throw new MayflyError('approver_is_party');
  }
  if (unmapped !== undefined)
    throw new MayflyError(
      'approver_unmapped',
      `Nothing says who ${unmapped.subject} is among the operators of ${own.source}.`,
    );
}

/** The subject at a source of operators; undefined where nothing says who that is. */
function asOperator(trust: Trust, { issuer, subject }: Party, source: string): string | undefined {
  const issuers = [...trust.taskIssuers, ...trust.tokenIssuers].filter((one) => one.issuer === issuer);
  const mappings = issuers.flatMap(({ subjects = [] }) => subjects.filter(({ operators }) => operators === source));
  const [mapping] = mappings;
  // Two issuers of one URL that disagree say nothing.
  if (mapping === undefined || mappings.length < issuers.length) return undefined;
  if (mappings.some(({ prefix }) => prefix !== mapping.prefix) || !subject.startsWith(mapping.prefix)) return undefined;
  const rest = subject.slice(mapping.prefix.length);
  return rest === '' ? undefined : rest;
}

function isSame(one: string, other: string): boolean {
  const plain = (text: string) => text.normalize('NFKC').toLowerCase();
  return plain(one) === plain(other);
}
