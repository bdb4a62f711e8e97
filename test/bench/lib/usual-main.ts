import { createInterface } from 'node:readline';
import { UsualScheme, type UsualSettings } from './usual-scheme.ts';

/** The usual scheme in a process of its own, to be killed. Orders come as JSON lines on its input; each is answered by a line. */
type Order = { readonly mint: number; readonly ttlSeconds: number } | { readonly endNow: true };

let scheme: UsualScheme | undefined;
for await (const line of createInterface({ input: process.stdin })) {
  let answer: unknown = [];
  if (scheme === undefined) {
    scheme = new UsualScheme(JSON.parse(line) as UsualSettings);
  } else {
    const order = JSON.parse(line) as Order;
    const { ttlSeconds, count } = 'mint' in order ? { ...order, count: order.mint } : { ttlSeconds: 0, count: 0 };
    if ('endNow' in order) await scheme.endNow();
    const minting = Array.from({ length: count }, () => scheme?.mint(ttlSeconds));
    answer = await Promise.all(minting);
  }
  process.stdout.write(`${JSON.stringify(answer)}\n`);
}
// Its parent is gone.
process.exit(0);
