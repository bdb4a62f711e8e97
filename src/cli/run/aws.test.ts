import { readFileSync } from 'node:fs';
import { afterEach, expect, test } from 'vitest';
import type { MintedBody } from '../../client/index.ts';
import { handOverAws } from './aws.ts';
import { readAwsKeys } from './aws-keys.ts';
import type { Handover } from './handover.ts';

const made: Handover[] = [];
afterEach(() => {
  for (const handover of made.splice(0)) handover.remove();
});

/** By a broker whose clock says 2030, whatever ours says. */
const at = (seconds: number) => new Date(Date.parse('2030-01-01T00:00:00.000Z') + seconds * 1000).toISOString();
const granted = (deadline: string) => ({ id: 'grt_1', created_at: at(0), deadline }) as MintedBody;
const credential = (id: string, expires: string) => ({
  access_key_id: id,
  secret_access_key: 's',
  session_token: 't',
  expires_at: expires,
});

async function handedOver(deadline: string, expires: string, secondsAgo = 0): Promise<Handover> {
  const keys = readAwsKeys({ grant: granted(deadline), credential: credential('ASIAONE', expires) });
  if (keys === undefined) throw new Error('no keys');
  const handover = await handOverAws(keys, granted(deadline), false, performance.now() - secondsAgo * 1000);
  made.push(handover);
  return handover;
}

async function ask({ env }: Handover): Promise<unknown> {
  const token = readFileSync(env['AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE'] ?? '', 'utf8');
  const response = await fetch(env['AWS_CONTAINER_CREDENTIALS_FULL_URI'] ?? '', { headers: { authorization: token } });
  const { AccessKeyId, Expiration, Code } = (await response.json()) as Record<string, string>;
  return Code ?? [AccessKeyId, Expiration];
}

test('keys are said to expire when their grant ends, or earlier where they end by themselves', async () => {
  expect(await ask(await handedOver(at(60), at(900)))).toEqual(['ASIAONE', '2030-01-01T00:01:00Z']);
  expect(await ask(await handedOver(at(900), at(60)))).toEqual(['ASIAONE', '2030-01-01T00:01:00Z']);
});

test('keys are served to their end by the broker’s clock, counted from before they were asked for', async () => {
  expect(await ask(await handedOver(at(300), at(300), 200))).toEqual(['ASIAONE', '2030-01-01T00:05:00Z']);
  expect(await ask(await handedOver(at(300), at(300), 301))).toBe('ExpiredToken');
});

test('a renewal brings new keys, or a later end of those in hand', async () => {
  const handover = await handedOver(at(300), at(300), 301);
  handover.renewed?.({ grant: granted(at(600)) });
  expect(await ask(handover)).toEqual(['ASIAONE', '2030-01-01T00:10:00Z']);
  handover.renewed?.({ grant: granted(at(900)), credential: credential('ASIATWO', at(900)) });
  expect(await ask(handover)).toEqual(['ASIATWO', '2030-01-01T00:15:00Z']);
});

test('keys of a grant that was ended are served no more, long before their deadline', async () => {
  const handover = await handedOver(at(300), at(300));
  handover.ended?.();
  expect(await ask(handover)).toBe('ExpiredToken');
});

test('what is not AWS’s is no keys', () => {
  const grant = granted(at(60));
  const whole = credential('ASIAONE', at(60));
  expect(readAwsKeys({ grant, credential: whole })).toBeDefined();
  for (const name of Object.keys(whole)) {
    expect(readAwsKeys({ grant, credential: { ...whole, [name]: '' } }), name).toBeUndefined();
  }
  expect(readAwsKeys({ grant, credential: { username: 'u', password: 'p', expires_at: at(60) } })).toBeUndefined();
});
