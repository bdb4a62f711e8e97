import { grantTag, isHandle } from './handle.ts';
import { issuedTag } from './issued.ts';

/**
 * - `list`: each ended grant, by both keys. `list-by-tag`: by the session tag alone, in half the room.
 * - `watermark`: whatever grant was minted before the cut and does not live; and a list of what was minted since.
 * - `role-wide`: whatever was minted before the cut, whoever it belongs to; and a list of what may be minted yet, where there is room.
 */
export type FenceForm = 'list' | 'list-by-tag' | 'watermark' | 'role-wide';

/** What one of our policies says. */
export interface FenceDocument {
  readonly form: FenceForm;
  /** Of this epoch's documents, the how many-th. */
  readonly generation: number;
  /** First eight hex digits of the installation that wrote it. */
  readonly installation: string;
  /** When the last one that it denies is powerless by itself, in milliseconds: it must stand until then. */
  readonly until: number;
  /** Handles denied by name, sorted. */
  readonly denied: readonly string[];
  /** What was minted before that, by the tag that its sessions bear, is denied, unless it is among `live`. Milliseconds, whole seconds; null without a cut. */
  readonly cut: number | null;
  readonly live: readonly string[];
}

interface Statement {
  readonly Sid: string;
  readonly Effect: 'Deny';
  readonly Action: '*';
  readonly Resource: '*';
  readonly Condition: Readonly<Record<string, Readonly<Record<string, string | readonly string[]>>>>;
}

const byTag = `aws:PrincipalTag/${grantTag}`;
const bySource = 'aws:SourceIdentity';
const byIssue = `aws:PrincipalTag/${issuedTag}`;
/** A session that bears no such tag is none of ours, or older than the tag: denied, too. */
const before = 'NumericLessThanIfExists';
/** Stands where a list is empty: no handle is written so, and IAM would refuse the empty list or read it as it likes. */
export const nobody = '-';
const prefix = 'mayfly-fence-';
const sid = /^MayflyG(\d+)I([0-9a-f]{8})U(\d+)([LTWR])$/;
const forms = { list: 'L', 'list-by-tag': 'T', watermark: 'W', 'role-wide': 'R' } as const;

export function policyName(epoch: bigint): string {
  return prefix + String(epoch);
}

/** Null for a policy that is not a fence, by its name. */
export function epochOf(name: string): bigint | null {
  return /^mayfly-fence-[1-9]\d{0,18}$/.test(name) ? BigInt(name.slice(prefix.length)) : null;
}

export function isInOurName(name: string): boolean {
  return name.startsWith(prefix);
}

/** The policy, without whitespace. The empty lists stand there as {@link nobody}. */
export function write(document: FenceDocument): string {
  const { form, generation, installation, until, denied, cut, live } = document;
  const first = `MayflyG${generation}I${installation}U${Math.ceil(until / 1000)}${forms[form]}`;
  const listed = named(denied);
  const statements: Statement[] = [];
  if (form === 'watermark' || form === 'role-wide') {
    statements.push(
      deny(first, {
        [before]: { [byIssue]: String(Math.floor((cut ?? 0) / 1000)) },
        ...(form === 'watermark' && { StringNotEquals: { [byTag]: named(live) } }),
      }),
    );
    if (form === 'watermark' || denied.length > 0)
      statements.push(deny('MayflyNamed', { StringEquals: { [byTag]: listed } }));
  } else {
    statements.push(deny(first, { StringEquals: { [byTag]: listed } }));
    if (form === 'list') statements.push(deny('MayflySource', { StringEquals: { [bySource]: listed } }));
  }
  return JSON.stringify({ Version: '2012-10-17', Statement: statements });
}

/** What a policy of ours says; null for one that we would not have written so, by whatever one character. */
export function read(text: string): FenceDocument | null {
  try {
    const value: unknown = JSON.parse(text);
    const statements = member(value, 'Statement');
    if (!Array.isArray(statements)) return null;
    const [, generation, installation = '', until, letter] = sid.exec(String(member(statements[0], 'Sid'))) ?? [];
    const form = formOf(letter);
    if (form === undefined) return null;
    const conditions = statements.map((statement: unknown) => member(statement, 'Condition'));
    const cutText = member(member(conditions[0], before), byIssue);
    const deniedIn = conditions[form === 'watermark' || form === 'role-wide' ? 1 : 0];
    const found: FenceDocument = {
      form,
      generation: Number(generation),
      installation,
      until: Number(until) * 1000,
      denied: handles(member(member(deniedIn, 'StringEquals'), byTag)),
      cut: typeof cutText === 'string' ? Number(cutText) * 1000 : null,
      live: handles(member(member(conditions[0], 'StringNotEquals'), byTag)),
    };
    return write(found) === JSON.stringify(value) ? found : null;
  } catch {
    return null;
  }
}

/** Whether it denies all sessions of that handle, whose grant was minted at the latest then. Null: nobody knows when. */
export function denies(document: FenceDocument, handle: string, issuedBy: number | null): boolean {
  if (document.denied.includes(handle)) return true;
  const old = document.cut !== null && issuedBy !== null && issuedBy < document.cut;
  return old && (document.form === 'role-wide' || (document.form === 'watermark' && !document.live.includes(handle)));
}

function deny(Sid: string, Condition: Statement['Condition']): Statement {
  return { Sid, Effect: 'Deny', Action: '*', Resource: '*', Condition };
}

function named(list: readonly string[]): readonly string[] {
  return list.length === 0 ? [nobody] : list;
}

function handles(value: unknown): readonly string[] {
  return Array.isArray(value) ? value.map(String).filter(isHandle) : [];
}

function formOf(letter: string | undefined): FenceForm | undefined {
  const all: readonly FenceForm[] = ['list', 'list-by-tag', 'watermark', 'role-wide'];
  return all.find((form) => forms[form] === letter);
}

function member(value: unknown, key: string): unknown {
  return typeof value === 'object' && value !== null ? Reflect.get(value, key) : undefined;
}
