import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { type CedarRequest, type CedarSlot, cedarWorks, openSlot, slotUse, validatePolicies } from './cedar.ts';
import { mayflySchema } from './mayfly-schema.ts';
import { cedarRequest } from './request.ts';
import { sampleRequest } from './testing/sample.ts';

const permit = 'permit (principal, action, resource);';
const good = cedarRequest(sampleRequest);
let slot: CedarSlot;

function open(policies: Record<string, string>): CedarSlot {
  slot = openSlot(mayflySchema, policies);
  return slot;
}
const without = (type: string): CedarRequest => ({
  ...good,
  entities: good.entities.filter(({ uid }) => 'type' in uid && uid.type !== type),
});

beforeEach(() => {
  slot = openSlot(mayflySchema, {});
});
afterEach(() => slot.close());

describe('what Cedar lets pass is denied', () => {
  test('a forbid that errors: Cedar itself would skip it and allow', () => {
    slot.close();
    const answer = open({
      permit,
      broken: 'forbid (principal, action, resource) when { context.tree.live_grants * 9223372036854775807 > 0 };',
    }).authorize(good);
    expect(answer).toMatchObject({ allowed: false, policies: ['permit'] });
    expect(answer.errors).toEqual([expect.stringMatching(/^broken: integer overflow/)]);
  });

  test.each(['Mayfly::Task', 'Mayfly::Entitlement'])('a request whose %s is missing', (type) => {
    slot.close();
    const answer = open({ permit }).authorize(without(type));
    expect(answer.allowed).toBe(false);
    expect(answer.errors).toEqual([expect.stringMatching(/is missing$/)]);
  });

  test('a missing entity that a forbid reads', () => {
    slot.close();
    const forbid = 'forbid (principal, action, resource) when { resource.target.environment == "production" };';
    const answer = open({ permit, forbid }).authorize(without('Mayfly::Target'));
    expect(answer.allowed).toBe(false);
    expect(answer.errors).toEqual([expect.stringMatching(/^forbid: entity .* does not exist$/)]);
  });

  test('a context attribute that the schema does not name', () => {
    slot.close();
    const answer = open({ permit }).authorize({ ...good, context: { ...good.context, trusted: true } });
    expect(answer).toMatchObject({ allowed: false, policies: [] });
    expect(answer.errors).toEqual([expect.stringContaining('trusted')]);
  });

  test('a context attribute that is not there', () => {
    slot.close();
    const { guarantee: _, ...context } = good.context;
    expect(open({ permit }).authorize({ ...good, context })).toMatchObject({ allowed: false });
  });

  test('an action that the schema does not know', () => {
    slot.close();
    const answer = open({ permit }).authorize({ ...good, action: { type: 'Mayfly::Action', id: 'steal' } });
    expect(answer.allowed).toBe(false);
    expect(answer.errors).not.toEqual([]);
  });

  test('a principal of a type that the action is not for', () => {
    slot.close();
    const principal = { type: 'Mayfly::Workload', id: 'dev:agent-recon' };
    const answer = open({ permit }).authorize({ ...good, principal });
    expect(answer.allowed).toBe(false);
    expect(answer.errors).toEqual([expect.stringContaining('principal type')]);
  });

  test('a value that cannot cross into Cedar at all', () => {
    slot.close();
    const answer = open({ permit }).authorize({ ...good, context: { ...good.context, guarantee: '\ud800' } });
    expect(answer.allowed).toBe(false);
    expect(answer.errors).not.toEqual([]);
    expect(slot.authorize(good)).toEqual({ allowed: true, policies: ['permit'], errors: [] });
  });

  test('everything, where there is no policy', () => {
    expect(slot.authorize(good)).toEqual({ allowed: false, policies: [], errors: [] });
  });
});

describe('slots', () => {
  test('side by side decide by their own policies only', () => {
    const other = openSlot(mayflySchema, { other: permit });
    expect(slot.authorize(good).allowed).toBe(false);
    expect(other.authorize(good).policies).toEqual(['other']);
    other.close();
  });

  test('one that is closed only denies, also when its place is taken', () => {
    slot.close();
    slot.close();
    const next = openSlot(mayflySchema, { permit });
    expect(next.authorize(good).allowed).toBe(true);
    expect(slot.authorize(good)).toEqual({ allowed: false, policies: [], errors: ['this policy set is closed'] });
    next.close();
  });

  test('a set that Cedar refuses takes no place and disturbs nobody', () => {
    const before = slotUse().open;
    expect(() => openSlot(mayflySchema, { broken: 'permit (principal' })).toThrow('Cedar refuses the policies');
    expect(() => openSlot('namespace {', { permit })).toThrow('Cedar refuses the policies');
    expect(slotUse().open).toBe(before);
    expect(slot.authorize(good)).toEqual({ allowed: false, policies: [], errors: [] });
  });

  test('300 reloads use two places in all', () => {
    const { made, open: openBefore } = slotUse();
    let current = openSlot(mayflySchema, { p0: permit });
    for (let round = 1; round <= 300; round += 1) {
      const next = openSlot(mayflySchema, { [`p${round}`]: permit });
      current.close();
      current = next;
      expect(current.authorize(good).policies).toEqual([`p${round}`]);
    }
    current.close();
    expect(slotUse().open).toBe(openBefore);
    expect(slotUse().made).toBeLessThanOrEqual(Math.max(made, openBefore + 2));
  });

  test('a leak of them is an error, not a slow death', () => {
    const opened: CedarSlot[] = [];
    try {
      expect(() => {
        for (let n = 0; n < 20; n += 1) opened.push(openSlot(mayflySchema, {}));
      }).toThrow('16 policy sets are open at once');
    } finally {
      for (const one of opened) one.close();
    }
  });
});

describe('strict validation', () => {
  const faults = (text: string): readonly string[] =>
    validatePolicies(mayflySchema, { p: text }).map(({ message }) => message);

  test.each([
    ['a misspelt attribute', 'when { principal.purpos == "x" }', /`purpos`.*did you mean `purpose`\?/],
    ['an unguarded tag', 'when { principal.getTag("tenant") == "acme" }', /hasTag\("tenant"\)/],
    ['text compared with a number', 'when { principal.purpose == 3 }', /types/],
    ['a policy that can never apply', 'when { false }', /impossible/],
    ['letters that look like others', 'when { principal.purpose == "p\u0430ypal" }', /mixed scripts/],
    ['a time that is none', 'when { context.now > datetime("2026-1-1") }', /datetime/],
  ])('refuses %s', (_what, clause, message) => {
    expect(faults(`permit (principal is Mayfly::Task, action, resource) ${clause};`)).toEqual([
      expect.stringMatching(message),
    ]);
  });

  test('takes what the schema offers', () => {
    const text = `permit (principal in Mayfly::Workload::"dev:a", action == Mayfly::Action::"issue", resource in Mayfly::Target::"t")
      when { context.ttl <= duration("5m") && context.now.toTime() > duration("8h") && principal.not_after > context.now
        && resource.actions.contains("read") && !resource.sink && resource.max_ttl < duration("1h")
        && resource.target.hasTag("team") && resource.target.getTag("team") == "finance"
        && principal.hasTag("tenant") && principal.getTag("tenant") == "acme"
        && principal.workload.source == "dev" && principal.depth < 2 && context.tree.live_grants < 10 };`;
    expect(faults(text)).toEqual([]);
  });
});

test('Cedar still works after all of this', () => {
  expect(cedarWorks()).toBe(true);
});

describe('a request that is written for the schema', () => {
  const schema = `
    entity Shelf;
    entity Book in [Shelf] { shelf: Shelf, near: Set<Shelf>, due: datetime, lent: { for: duration, by: Shelf } } tags String;
    action read appliesTo { principal: Book, resource: Book, context: { at: datetime, price: decimal, from: ipaddr, all: Set<Book>, word: String } };
  `;
  const shelf = (id: string) => ({ __entity: { type: 'Shelf', id } });
  const extension = (fn: string, arg: string) => ({ __extn: { fn, arg } });
  const book = { type: 'Book', id: 'b' };
  const asked: CedarRequest = {
    ...{ principal: book, action: { type: 'Action', id: 'read' }, resource: book },
    context: {
      at: extension('datetime', '2026-01-05T10:00:00.000Z'),
      ...{ price: extension('decimal', '1.50'), from: extension('ip', '10.0.0.0/8') },
      all: [{ __entity: book }],
      word: '2026-01-05',
    },
    entities: [
      {
        uid: book,
        attrs: {
          ...{ shelf: shelf('a'), near: [shelf('a'), shelf('b')], due: extension('datetime', '2026-01-06') },
          lent: { for: extension('duration', '90000ms'), by: shelf('b') },
        },
        parents: [{ type: 'Shelf', id: 'a' }],
        tags: { type: 'paper' },
      },
    ],
  };
  const policy = `permit (principal, action == Action::"read", resource in Shelf::"a") when {
    context.at == datetime("2026-01-05T10:00:00.000Z") && context.price == decimal("1.5") && context.from == ip("10.0.0.0/8") &&
    context.all == [Book::"b"] && context.word == "2026-01-05" && resource.shelf == Shelf::"a" && resource.near == [Shelf::"b", Shelf::"a"] &&
    resource.due == datetime("2026-01-06") && resource.lent == {for: duration("90s"), by: Shelf::"b"} && resource.getTag("type") == "paper" };`;

  test('is decided as one that wraps each value', () => {
    const books = openSlot(schema, { all: policy });
    const allowed = { allowed: true, policies: ['all'], errors: [] };
    expect(books.authorize(asked)).toEqual(allowed);
    expect(books.authorize(asked, 'for-schema')).toEqual(allowed);
    books.close();
  });

  test('is denied where a value is not what the schema says', () => {
    const books = openSlot(schema, { all: policy });
    for (const wrong of [
      { at: 'soon' },
      { price: 1 },
      { all: [shelf('a')] },
      { word: book },
      { at: asked.context['from'] ?? '' },
    ]) {
      const { allowed, errors } = books.authorize({ ...asked, context: { ...asked.context, ...wrong } }, 'for-schema');
      expect([allowed, errors.length > 0]).toEqual([false, true]);
    }
    books.close();
  });
});
