import type { Scenario } from './scenarios.ts';
import { PAYMENTS, plain } from './world.ts';

/** Living grants are decided again by a revision that permits one of them no more: that one ends, and the other is left alone. */
export const drift: Scenario = async (world) => {
  const task = await world.open();
  const staying = await world.hold(task);
  const drifting = await world.hold(task, { entitlement: PAYMENTS });
  const policies = world.house.files['policies/test.cedar'] ?? '';
  const forbid = `@id("drift") forbid (principal is Mayfly::Task, action, resource == Mayfly::Entitlement::"${PAYMENTS}");`;
  const ended = () =>
    world.until('it has drifted', async () =>
      (await world.eye.fates([plain(task)])).some(
        ({ id, state }) => id === plain(drifting.grant.id) && state === 'revoked',
      ),
    );
  return {
    act: () => world.house.broker.apply({ ...world.house.files, 'policies/test.cedar': `${policies}\n${forbid}\n` }),
    after: async () => {
      await ended();
      await world.use(staying);
      await world.house.broker.apply(world.house.files);
      await world.use(await world.patiently(() => world.hold(task, { entitlement: PAYMENTS })));
      await world.use(staying);
    },
  };
};
