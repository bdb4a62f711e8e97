import type { Fault } from '../support/synthetic/target.ts';
import { type Driver, providerContract } from './provider/index.ts';

export async function runCase(driver: Driver, name: string, extent?: { readonly bounded: boolean }): Promise<unknown> {
  return await runCases(driver, [name], extent);
}

/** One after another, on one system. Answers what the last one came to. */
export async function runCases(
  driver: Driver,
  names: readonly string[],
  extent?: { readonly bounded: boolean },
): Promise<unknown> {
  const { cases, stop } = providerContract(driver, extent);
  try {
    let came: unknown;
    for (const name of names) {
      const found = cases.find((each) => each.name.startsWith(name));
      if (found === undefined) throw new Error(`no case ${name}`);
      came = await found.run();
    }
    return came;
  } finally {
    await stop();
  }
}

/** A mint that is done, and answers something else with it. */
export function broadens(change: object): Fault {
  return { answer: async ({ refs, honest }) => ({ ...Object(await honest(refs)), ...change }) };
}
