import { expect, vi } from 'vitest';
import type { MintedBody, TaskBody } from '../../src/client/index.ts';
import { queuePageBody, storyBody } from '../../src/http/queue-bodies.ts';
import { ask, type Reply } from './ask.ts';
import type { House } from './house.ts';

export type Role = 'viewer' | 'operator' | 'auditor' | 'admin';

/** Operators of a house. What they are answered is held against the schemas of the OpenAPI document. */
export interface Operators {
  token(role: Role, subject?: string): Promise<string>;
  get(path: string, role?: Role): Promise<Reply>;
  post(path: string, body?: unknown, role?: Role, subject?: string): Promise<Reply>;
  queue(query?: string): Promise<ReturnType<typeof queuePageBody.parse>>;
  story(id: string): Promise<ReturnType<typeof storyBody.parse>>;
  /** Waits until one stands so. */
  until(id: string, state: string): Promise<ReturnType<typeof storyBody.parse>>;
}

export function operatorsOf(house: Pick<House, 'issuer' | 'url'>): Operators {
  const token = async (role: Role, subject = 'olga') =>
    (await house.issuer.signOperatorToken({ subject, roles: [role], audience: house.url, ttl_seconds: 900 })).token;
  const operators: Operators = {
    token,
    get: async (path, role = 'viewer') => await ask(house.url, 'GET', path, { token: await token(role) }),
    post: async (path, body, role = 'operator', subject) =>
      await ask(house.url, 'POST', path, {
        token: await token(role, subject),
        ...(body === undefined ? {} : { body }),
      }),
    queue: async (query = '') => {
      const reply = await operators.get(`/v1/revocations${query}`);
      expect([reply.status, reply.body['code']]).toEqual([200, undefined]);
      return queuePageBody.parse(reply.body);
    },
    story: async (id) => storyBody.parse((await operators.get(`/v1/revocations/${id}`)).body),
    until: async (id, state) => {
      await vi.waitFor(async () => expect((await operators.story(id)).revocation.state).toBe(state), {
        timeout: 60_000,
        interval: 50,
      });
      return await operators.story(id);
    },
  };
  return operators;
}

/** A task with so many grants of that life. */
export async function grantsIn(
  house: House,
  count: number,
  ttlSeconds = 300,
): Promise<{ task: TaskBody; grants: MintedBody[] }> {
  const client = house.client();
  const { task } = await client.openTask(await house.sign());
  const issued = await Promise.all(
    Array.from({ length: count }, () =>
      client.issue(task.id, { entitlement: 'ledger-db/read-invoices', ttl_seconds: ttlSeconds }),
    ),
  );
  return { task, grants: issued.map(({ grant }) => grant) };
}
