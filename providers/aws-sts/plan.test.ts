import { describe, expect, test } from 'vitest';
import { denies, epochOf, nobody, read } from './document.ts';
import { handleOf, randomHandle } from './handle.ts';
import { adopt, cutBesides, type FenceRequest, planFence, supersedes } from './plan.ts';

const now = Date.parse('2030-01-01T12:00:00.400Z');
const base: FenceRequest = {
  ...{ epoch: 17n, installation: '0123abcd', now, seen: now, live: [], ended: [], previous: null },
  ...{ budget: 10_240, quota: 30_000, lagMillis: 60_000 },
};
const many = (count: number) => Array.from({ length: count }, randomHandle);
const ended = (handles: readonly string[], until = now + 600_000, issuedBy: number | null = now - 300_000) =>
  handles.map((handle) => ({ handle, until, issuedBy }));

function planned(request: Partial<FenceRequest>) {
  const plan = planFence({ ...base, ...request });
  if (plan === undefined) throw new Error('It does not fit.');
  return plan;
}

test('a handle is twelve characters of base32, the same for the same grant', () => {
  const id = '019ab000-0000-7000-8000-000000000001';
  expect(handleOf(id)).toMatch(/^[a-z2-7]{12}$/);
  expect(handleOf(id.toUpperCase())).toBe(handleOf(id));
  expect(() => handleOf('x')).toThrow('must be a UUID');
});

describe('within the budget', () => {
  test('each ended grant is denied by both keys, in a policy that bears the epoch and reads back as it was written', () => {
    const handles = many(3);
    const { name, document, form, says } = planned({ ended: ended(handles) });
    expect({ name, form, epoch: epochOf(name) }).toEqual({ name: 'mayfly-fence-17', form: 'list', epoch: 17n });
    expect(Object.keys(JSON.parse(document).Statement[1].Condition.StringEquals)).toEqual(['aws:SourceIdentity']);
    expect(read(document)).toEqual({ ...says, until: Math.ceil(says.until / 1000) * 1000 });
    expect(handles.every((handle) => denies(says, handle, null))).toBe(true);
    expect(denies(says, randomHandle(), 0)).toBe(false);
  });

  test('nobody ended is written as nobody', () => {
    expect(planned({}).document).toContain(`["${nobody}"]`);
  });

  test('an entry leaves when its grant is powerless by itself, and not before', () => {
    const [first = '', second = ''] = many(2);
    const { kept } = planned({ ended: [...ended([first], now + 1_000), ...ended([second], now + 2_000)] });
    const later = planned({ previous: kept, now: now + 1_000 });
    expect(later.says).toMatchObject({ denied: [second], generation: 2 });
  });

  test('what ended twice leaves at the later time', () => {
    const handle = randomHandle();
    const { kept } = planned({ ended: ended([handle], now + 9_000) });
    const again = planned({ previous: kept, ended: ended([handle], now + 1_000) });
    expect(again.kept.ended).toEqual(ended([handle], now + 9_000));
  });
});

describe('beyond it', () => {
  test('one key serves, then the cut, whose size goes with what lives, then the whole role', () => {
    expect(planned({ ended: ended(many(300)) }).form).toBe('list');
    expect(planned({ ended: ended(many(500)) }).form).toBe('list-by-tag');
    const live = many(100).map((handle) => ({ handle, issuedFrom: now - 300_000 }));
    const crowd = ended(many(5_000));
    const { form, says, document } = planned({ ended: crowd, live });
    expect({ form, besides: cutBesides(live, [says]) }).toEqual({ form: 'watermark', besides: [] });
    expect(document.length).toBeLessThan(2_500);
    expect(crowd.every(({ handle, issuedBy }) => denies(says, handle, issuedBy))).toBe(true);
    expect(live.some(({ handle }) => denies(says, handle, now - 299_000))).toBe(false);
    const young = planned({ ended: ended(many(5_000), now + 600_000, now), live });
    expect({ form: young.form, besides: cutBesides(live, [young.says]).length }).toEqual({
      form: 'role-wide',
      besides: 100,
    });
    // Those were told, and end with the others: the next document needs not deny the whole role again.
    const next = ended(
      live.map(({ handle }) => handle),
      now + 600_000,
      now - 300_000,
    );
    const fresh = many(50).map((handle) => ({ handle, issuedFrom: now + 2_000 }));
    const after = planned({ previous: young.kept, ended: next, live: fresh, now: now + 3_000, seen: now + 3_000 });
    expect({ form: after.form, besides: cutBesides(fresh, [after.says]) }).toEqual({ form: 'watermark', besides: [] });
    expect([...crowd, ...next].every(({ handle, issuedBy }) => denies(after.says, handle, issuedBy))).toBe(true);
  });

  test('the cut never moves back, and nothing lives is written as nobody', () => {
    const { kept } = planned({ ended: ended(many(5_000)) });
    const later = planned({ previous: kept, now: now - 30_000 });
    expect(later.says.cut).toBe(kept.cut);
    expect(later.document).toContain(`"StringNotEquals":{"aws:PrincipalTag/mayfly-grant":["${nobody}"]}`);
  });

  test('no room at all is no plan', () => {
    expect(planFence({ ...base, budget: 100 })).toBeUndefined();
  });
});

test('a policy that was touched by somebody else is not ours', () => {
  const { document } = planned({ ended: ended(many(2)) });
  expect(read(document.replace('"Deny"', '"Allow"'))).toBeNull();
  expect(read(document.replace('}]}', '},{"Effect":"Allow","Action":"*","Resource":"*"}]}'))).toBeNull();
  expect(read('{}')).toBeNull();
  expect(read('not json')).toBeNull();
});

describe('beside other epochs', () => {
  const other = { form: 'watermark', generation: 9, installation: '0123abcd', until: now + 300_000 } as const;
  const [named = '', living = ''] = many(2);
  const cut = Math.floor((now - 120_000) / 1000) * 1000;
  const says = { ...other, denied: [named], cut, live: [living] };

  test('what is taken over is denied by a cut as long as some of it is known by no name, and then by a list again', () => {
    const previous = adopt(null, says, now + 60_000);
    const live = [{ handle: living, issuedFrom: cut - 1000 }];
    const plan = planned({ previous, live });
    expect(plan.says).toMatchObject({ form: 'watermark', denied: [named], live: [living] });
    expect(supersedes(plan.says, plan.kept, says)).toBe(true);
    expect(planned({ previous: plan.kept, live, now: now + 299_000 }).form).toBe('watermark');
    expect(planned({ previous: plan.kept, live, now: now + 300_000 })).toMatchObject({
      form: 'list',
      says: { denied: [] },
    });
  });

  test('a list does not make a cut needless, nor a document that lacks a name', () => {
    const list = planned({ ended: ended([named]) });
    expect(supersedes(list.says, list.kept, says)).toBe(false);
    expect(supersedes(list.says, list.kept, { ...says, form: 'list', cut: null })).toBe(true);
    expect(supersedes(list.says, list.kept, { ...says, form: 'list', cut: null, denied: [living] })).toBe(false);
  });

  test('a document takes its share of the quota, and the shortest one whatever is left', () => {
    const some = { ended: ended(many(100)), quota: 10_000 };
    expect(planned(some).form).toBe('list');
    expect(planned({ ...some, quota: 6_000 }).form).toBe('list-by-tag');
    expect(planned({ ...some, budget: 900 })).toMatchObject({ form: 'watermark' });
    const since = ended(many(100), now + 600_000, now);
    expect(planned({ ...some, ended: since, budget: 500 })).toMatchObject({ form: 'role-wide' });
  });

  test('the cut stays behind the time when it was read who lives', () => {
    const crowd = ended(many(5_000), now + 600_000, now - 900_000);
    expect(planned({ ended: crowd, seen: now - 600_000 })).toMatchObject({
      form: 'watermark',
      says: { cut: Math.floor((now - 660_000) / 1000) * 1000 },
    });
  });
});
