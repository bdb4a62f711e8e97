import { expect, test } from 'vitest';
import type { Session } from '../provider.ts';
import { guardSession } from './guarded-session.ts';

/** Answers with the name of what was called and what it was given; knows itself, as a class does. */
class Recorder {
  readonly calls: string[] = [];
  readonly oneDocument = true;

  call(name: string, args: readonly unknown[]): never {
    this.calls.push(name);
    return [name, ...args] as never;
  }
  async guarantee(...args: readonly unknown[]): Promise<never> {
    return this.call('guarantee', args);
  }
  reserve(...args: readonly unknown[]): never {
    return this.call('reserve', args);
  }
  async mint(...args: readonly unknown[]): Promise<never> {
    return this.call('mint', args);
  }
  async renew(...args: readonly unknown[]): Promise<never> {
    return this.call('renew', args);
  }
  async fence(...args: readonly unknown[]): Promise<never> {
    return this.call('fence', args);
  }
  async verify(...args: readonly unknown[]): Promise<never> {
    return this.call('verify', args);
  }
  async reap(...args: readonly unknown[]): Promise<never> {
    return this.call('reap', args);
  }
  async inspect(...args: readonly unknown[]): Promise<never> {
    return this.call('inspect', args);
  }
  async observe(...args: readonly unknown[]): Promise<never> {
    return this.call('observe', args);
  }
  async ends(...args: readonly unknown[]): Promise<never> {
    return this.call('ends', args);
  }
  async list(...args: readonly unknown[]): Promise<never> {
    return this.call('list', args);
  }
  async hold(...args: readonly unknown[]): Promise<never> {
    return this.call('hold', args);
  }
  async check(...args: readonly unknown[]): Promise<never> {
    return this.call('check', args);
  }
  async close(): Promise<void> {
    this.calls.push('close');
  }
}

const changing = ['guarantee', 'mint', 'renew', 'fence', 'reap', 'check'] as const;
const looking = ['verify', 'inspect', 'observe', 'ends', 'list', 'hold'] as const;

/** Calls a member with two arguments, whatever it takes. */
async function ask(session: Session, name: string): Promise<unknown> {
  const member: unknown = Object.entries(session).find(([known]) => known === name)?.[1];
  if (typeof member !== 'function') throw new Error(`it can not ${name}`);
  return await Reflect.apply(member, session, ['first', 'second']);
}

test.each(changing)('%s waits for the target to be ours, and is then what it was', async (name) => {
  const session = new Recorder();
  const order: string[] = [];
  const guarded = guardSession(session, async () => void order.push(`proven after ${session.calls.length}`));
  expect(await ask(guarded, name)).toEqual([name, 'first', 'second']);
  expect(order).toEqual(['proven after 0']);
  expect(session.calls).toEqual([name]);
});

test.each(changing)('%s is refused while the target is not ours', async (name) => {
  const session = new Recorder();
  const guarded = guardSession(session, async () => await Promise.reject(new Error('a stranger')));
  await expect(ask(guarded, name)).rejects.toThrow('a stranger');
  expect(session.calls).toEqual([]);
});

const free: readonly (readonly [string, unknown])[] = [
  ...looking.map((name) => [name, [name, 'first', 'second']] as const),
  ['reserve', ['reserve', 'first']],
  ['close', undefined],
];
test.each(free)('%s is free', async (name, answer) => {
  const session = new Recorder();
  const guarded = guardSession(session, async () => await Promise.reject(new Error('a stranger')));
  expect(await ask(guarded, name)).toEqual(answer);
  expect(session.calls).toEqual([name]);
});

test('what a session can not do, it can not do guarded', () => {
  const no = async (): Promise<never> => await Promise.reject(new Error('not asked for'));
  const bare: Session = {
    ...{ guarantee: no, reserve: () => '', mint: no, fence: no, verify: no, reap: no, check: no, close: no },
  };
  const guarded = guardSession(bare, async () => {});
  expect(Object.keys(guarded).sort()).toEqual(Object.keys(bare).sort());
  expect(guardSession(new Recorder(), async () => {}).oneDocument).toBe(true);
});
