import { existsSync, readFileSync } from 'node:fs';
import { z } from 'zod';
import { ask, type Reply } from './ask.ts';
import type { House } from './house.ts';

/** A catalog's own types, and what it knows of them. */
export const TYPES = `
entity group;
entity user in [group] = { department?: String };
entity document in [group] = { owner?: user, open?: Bool };
entity account;
action can_read, can_edit, read in [Mayfly::Action::"evaluate"] appliesTo {
  principal: [Mayfly::Task, Mayfly::Workload, user],
  resource: [document, account],
  context: {
    now: datetime,
    tree?: Mayfly::Tree,
    proof_of_possession?: Bool,
    caller?: { time?: String, purpose?: String },
    action_properties?: { method?: String },
  },
};
`;

export const ENTITIES = `
- { type: user, id: alice@example.com, attrs: { department: Sales }, parents: [{ type: group, id: readers }] }
- { type: document, id: "1", attrs: { open: true } }
- { type: document, id: "2", attrs: { open: false } }
- { type: document, id: "3", attrs: { open: true } }
`;

export const SCHEMA = 'policies/schema.cedarschema';

/** Permits to evaluate, and nothing else of what the house's own policies say. */
export const permitting = (id: string, when: string) =>
  `@id("${id}") permit (principal, action in Mayfly::Action::"evaluate", resource) when { ${when} };`;

export interface Question {
  readonly subject?: unknown;
  readonly action?: unknown;
  readonly resource?: unknown;
  readonly context?: unknown;
}

export const aboutTask = (id: string, more: Question = {}) => ({
  subject: { type: 'task', id },
  action: { name: 'read' },
  resource: { type: 'document', id: '1' },
  ...more,
});

export async function evaluateAs(
  house: House,
  workload: string,
  body: unknown,
  headers: Readonly<Record<string, string>> = {},
  path = '/access/v1/evaluation',
): Promise<Reply> {
  return await ask(house.url, 'POST', path, { token: await house.token(workload), body, headers });
}

/** What is answered: the decision, and why not. */
export const said = ({ status, body }: Reply) => [status, body['decision'], Object(body['context'])['code']];

const folder = new URL('../../../shared/vectors/authzen/', import.meta.url);
export const vectorsThere = existsSync(folder);
if (!vectorsThere && process.env['CI'] === 'true')
  throw new Error(`the AuthZEN vectors are missing: ${folder.pathname}`);
if (!vectorsThere) console.warn('SKIPPED: the AuthZEN vectors are not beside the repository');

export function vector(name: string): Record<string, unknown> {
  return z.record(z.string(), z.unknown()).parse(JSON.parse(readFileSync(new URL(name, folder), 'utf8')));
}

/** The specification's own JSON Schema. */
export function schemaOf(name: 'request' | 'response'): z.ZodType {
  return z.fromJSONSchema(vector(`evaluation-${name}.schema.json`));
}
