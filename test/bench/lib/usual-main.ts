import { createInterface } from 'node:readline';
import { UsualScheme, type UsualSettings } from './usual-scheme.ts';

/** The usual scheme in a process of its own, to be killed. Orders come as JSON lines on its input; each is answered by a line. */
type Order = { readonly mint: number; readonly ttlSeconds: number } | { readonly endNow: true };

let scheme: UsualScheme | undefined;
for await (const line of createInterface({ input: process.stdin })) {
  const answer = scheme === undefined ? [] : await obey(scheme, JSON.parse(line) as Order);
  scheme ??= new UsualScheme(JSON.parse(line) as UsualSettings);
  process.stdout.write(`${JSON.stringify(answer)}\n`);
}
// Its parent is gone.
process.exit(0);

async function obey(usual: UsualScheme, order: Order): Promise<unknown> {
  if ('mint' in order) return Promise.all(Array.from({ length: order.mint }, async () => usual.mint(order.ttlSeconds)));
  await usual.endNow();
  return [];
}
