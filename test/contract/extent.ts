/**
 * How much `npm test` looks at: the mechanism of one entitlement of each provider, since all else is tested beside it too.
 * `npm run test:contract` looks at all of them, unless it is told not to.
 */
const { MAYFLY_TEST_EVERY_BACKEND: every, MAYFLY_TEST_ONE_ENTITLEMENT: one } = process.env;

export const extent = { bounded: every === undefined || one !== undefined };
