import { randomUUID } from 'node:crypto';
import { type CheckStep, ProviderError, type Session } from '../../../src/provider.ts';
import type { Entitlement } from './provider.ts';
import { withRedis } from './redis.ts';

/** One life: minted, let in, refused what is not its own, ended, refused. Nothing of it stays. */
export async function canary(
  session: Session<Entitlement>,
  { name, config }: { readonly name: string; readonly config: Entitlement },
  signal: AbortSignal,
): Promise<readonly CheckStep[]> {
  const grantId = randomUUID();
  const deadline = new Date(Date.now() + 60_000);
  const ref = { grantId, handle: session.reserve(grantId), facts: null, deadline };
  const named = config.keys.flatMap((key) => [...key.matchAll(/\{(\w+)\}/g)].map(([, param = '']) => param));
  const params = Object.fromEntries(named.map((param) => [param, 'canary']));
  const times = { deadline, notAfter: deadline, mintBy: deadline };
  try {
    const minted = await session.mint(ref, { grantId, entitlement: name, config, params, ...times }, signal);
    const { host, port, password } = minted.secret.reveal();
    const login = { host: String(host), port: Number(port), username: ref.handle, password: String(password) };
    const came = async (): Promise<string> =>
      await withRedis(login, signal, (redis) => redis.get('mayfly:system')).then(
        () => 'let in',
        (error: unknown) => (error instanceof ProviderError ? error.message : 'failed'),
      );
    const inside = await came();
    const [cut] = await session.fence([ref], signal);
    const after = await came();
    return [
      { step: 'rights', ok: inside.includes('NOPERM'), says: `A key that is not its own: ${inside}` },
      { step: 'end', ok: cut?.ok === true && after.includes('WRONGPASS'), says: `After its end: ${after}` },
    ];
  } finally {
    await session.fence([ref], signal);
  }
}
