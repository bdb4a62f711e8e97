import assert from 'node:assert/strict';
import { classified, contain } from '../ending.ts';
import type { Subject } from '../subject.ts';
import type { CaseOf } from './case.ts';
import { type Came, callAll, type Prepared, prepareAll } from './every-call.ts';

export const rightsCases: readonly CaseOf[] = [
  {
    name: 'rights: lost midway, each call is denied and none a success; given back, all goes on',
    run: async (subject) => {
      const rights = subject.need('rights');
      const all = await prepareAll(subject);
      await rights.lose();
      let came: readonly (readonly Came[])[];
      try {
        const most = (subject.system.callMillis ?? 30_000) + subject.graceMillis;
        came = await Promise.all(all.map((on) => callAll(subject, on, subject.signal(), most)));
      } finally {
        await rights.restore();
      }
      for (const [index, on] of all.entries()) {
        const own = came[index] ?? [];
        for (const name of ['mint', 'fence', 'verify']) assertDenied(name, own);
        const step = own.find(({ name }) => name === 'check');
        if (step !== undefined && 'answered' in step && Array.isArray(step.answered))
          assert.ok(
            step.answered.some((each: { ok: boolean }) => !each.ok),
            'Without its rights, check passes',
          );
        await goesOn(subject, on);
      }
    },
  },
];

function assertDenied(name: string, came: readonly Came[]): void {
  const found = came.find((each) => each.name === name);
  assert.ok(found !== undefined && !('goesOn' in found), `${name} did not end`);
  if ('threw' in found) {
    assert.equal(classified(found.threw, name).errorClass, 'denied', `${name}: ${String(found.threw)}`);
    return;
  }
  if (!('answered' in found) || !Array.isArray(found.answered))
    assert.fail(`${name} was a success without the right to it`);
  for (const answer of found.answered) {
    // Looking may be allowed still: what lives is then seen to live.
    if (name === 'verify' && answer.ok === true)
      assert.equal(answer.contained, false, 'What lives was called contained');
    else {
      assert.equal(answer.ok, false, `${name} was a success without the right to it`);
      assert.equal(classified(answer.error, name).errorClass, 'denied', `${name}: ${String(answer.error)}`);
    }
  }
}

async function goesOn(subject: Subject, on: Prepared): Promise<void> {
  await contain(subject, [on.fenced.ref, on.verified.ref, on.renewed.ref, on.reaped.ref, on.late]);
  assert.equal(
    await subject.uses(await subject.mint({ entitlement: on.entitlement })),
    true,
    'With its rights again it mints what does not work',
  );
}
