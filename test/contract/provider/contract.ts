import { casesOf } from './cases/index.ts';
import type { Driver } from './driver.ts';
import { tidy } from './ending.ts';
import { NotApplicable } from './not-applicable.ts';
import type { Extent, Measured } from './live.ts';
import { CASE_MILLIS, Subject } from './subject.ts';

/** What a case came to, where it did not throw. */
export interface Result extends Measured {
  /** Why it has nothing to show on this provider. It has not passed then. */
  readonly notApplicable?: string;
}

export interface Case {
  /** The same for every provider. */
  readonly name: string;
  /** One case at a time. The first one starts the system. @throws Error that says what was promised and what was seen. */
  readonly run: () => Promise<Result>;
}

export interface Contract {
  readonly cases: readonly Case[];
  /** Ends the system, started or not. */
  readonly stop: () => Promise<void>;
}

/** Every case of the provider contract (DESIGN §5) against the system of this driver. Knows nothing of a test framework. */
export function providerContract(driver: Driver, extent: Extent = {}): Contract {
  let started: Promise<Subject> | undefined;
  const subject = (): Promise<Subject> => (started ??= Subject.start(driver, extent));
  return {
    cases: casesOf.map(({ name, run }) => ({
      name,
      run: async () => {
        const on = await subject();
        let result: Result;
        try {
          result = (await run(on)) ?? {};
        } catch (error) {
          // What went wrong first is what is told.
          await tidy(on).catch(() => {});
          if (error instanceof NotApplicable) return { notApplicable: error.message };
          throw error;
        }
        await tidy(on);
        return result;
      },
    })),
    stop: async () => {
      if (started !== undefined) await (await started.catch(() => undefined))?.stop();
    },
  };
}

/** As much of a test's context as is used; those of vitest and of node:test fit. */
export interface TestContext {
  readonly skip: (why: string) => unknown;
  /** Of vitest: what is written here stands in its JSON report. */
  readonly task?: { readonly meta: object };
}

/** `test` and `afterAll` of vitest, or `test` and `after` of node:test. */
export interface Framework {
  readonly test: (name: string, options: { timeout: number }, run: (context: TestContext) => Promise<void>) => unknown;
  readonly after: (stop: () => Promise<void>) => unknown;
}

/** Makes each case a test. What is not applicable is skipped, and says why. */
export function testProvider(driver: Driver, { test, after }: Framework, extent: Extent = {}): void {
  const { cases, stop } = providerContract(driver, extent);
  after(stop);
  for (const { name, run } of cases) {
    test(name, { timeout: driver.patienceMillis ?? CASE_MILLIS }, async (context) => {
      const { notApplicable, lateMillis, leftBehind } = await run();
      if (context.task !== undefined) {
        Object.assign(context.task.meta, {
          ...(lateMillis === undefined ? {} : { late_ms: lateMillis }),
          ...(leftBehind === undefined ? {} : { left_behind: leftBehind }),
          ...(notApplicable === undefined ? {} : { not_applicable: notApplicable }),
        });
      }
      if (notApplicable !== undefined) context.skip(`not applicable: ${notApplicable}`);
    });
  }
}
