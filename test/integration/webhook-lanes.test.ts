import { afterAll, afterEach, beforeAll, beforeEach, expect, test, vi } from 'vitest';
import type { Webhook } from '../../src/catalog/types.ts';
import { ordinaryEvents } from '../../src/domain/news.ts';
import { Secret } from '../../src/domain/secret.ts';
import { targetEvent } from '../../src/revocation/evidence.ts';
import { WebhookLanes, type WebhookLanesOptions } from '../../src/revocation/webhook-lanes.ts';
import { declareWebhooks, listWebhookStates, type WebhookState } from '../../src/store/webhooks.ts';
import { type EngineHouse, startEngineHouse } from '../support/engine.ts';
import { isSignedBy, startReceiver, type WebhookReceiver } from '../support/webhook-receiver.ts';

const KEY = `whsec_${Buffer.alloc(32, 7).toString('base64')}`;
const OLD_KEY = `whsec_${Buffer.alloc(32, 9).toString('base64')}`;

let house: EngineHouse;
let receiver: WebhookReceiver;
let revision = 0;
const running: WebhookLanes[] = [];
let outcomes: string[];

beforeAll(async () => {
  house = await startEngineHouse();
  receiver = await startReceiver();
});
afterAll(async () => {
  receiver?.stop();
  await house?.stop();
});
beforeEach(async () => {
  receiver.received.splice(0);
  receiver.answer = 204;
  outcomes = [];
  house.logs.splice(0);
  await house.onStore('DELETE FROM mayfly.webhook_deliveries');
  await house.onStore('DELETE FROM mayfly.webhooks');
});
afterEach(async () => {
  for (const lanes of running.splice(0)) await lanes.stop();
});

const patiently = { timeout: 30_000, interval: 20 };

function webhook(over: Partial<Webhook> = {}): Webhook {
  return {
    ...{
      name: 'oncall',
      dev: true,
      url: receiver.url,
      format: 'standard',
      events: ['target.*'],
      secrets: ['file:key'],
    },
    ...{ targets: null, addresses: null },
    ...over,
  };
}

/** As an apply does. */
async function declare(...webhooks: readonly Webhook[]): Promise<void> {
  revision += 1;
  const declared = webhooks.map(({ name, events, targets }) => ({
    ...{ name, targets },
    types: events.filter((event) => !event.endsWith('.*')),
    families: events.filter((event) => event.endsWith('.*')).map((event) => event.slice(0, -2)),
  }));
  await house.db.transaction({}, (tx) => declareWebhooks(tx, revision, declared));
}

function start(webhooks: readonly Webhook[], over: Partial<WebhookLanesOptions> = {}): WebhookLanes {
  const lanes = new WebhookLanes({
    db: house.db,
    webhooks: () => webhooks,
    secret: (_owner, reference) => new Secret(reference === 'file:old' ? OLD_KEY : KEY),
    url: 'https://broker.example',
    observer: { delivered: (name, outcome, count) => outcomes.push(`${name} ${outcome} ${count}`) },
    random: () => 0,
    log: house.deps.log,
    ...over,
  });
  running.push(lanes);
  lanes.start();
  return lanes;
}

/** Declared and told by one replica. */
async function told(...webhooks: readonly Webhook[]): Promise<void> {
  await declare(...webhooks);
  start(webhooks);
}

async function happen(...targets: readonly string[]): Promise<void> {
  await house.db.transaction({}, async (tx) => {
    for (const target of targets) tx.record(targetEvent('target.paused', house.deps, target, { target }));
  });
}

async function state(name = 'oncall'): Promise<WebhookState> {
  const found = (await listWebhookStates(house.db)).find((one) => one.name === name);
  if (found === undefined) throw new Error(`no webhook ${name}`);
  return found;
}

interface Delivery {
  readonly event_id: string;
  readonly webhook: string;
  readonly attempts: number;
  readonly seconds: number;
  readonly last_error: string | null;
}

async function pending(): Promise<Delivery[]> {
  return await house.onStore(
    `SELECT event_id, webhook, attempts, last_error, extract(epoch FROM try_at - clock_timestamp())::float8 AS seconds
     FROM mayfly.webhook_deliveries WHERE delivered_at IS NULL AND given_up_at IS NULL`,
  );
}

/** What waits for its time waits no longer. */
async function passTime(): Promise<void> {
  await house.onStore('UPDATE mayfly.webhooks SET hold_until = NULL');
  await house.onStore('UPDATE mayfly.webhook_deliveries SET try_at = clock_timestamp() WHERE delivered_at IS NULL');
}

/** The first failure, recorded. */
async function untilFailed(): Promise<Delivery> {
  return await vi.waitFor(async () => {
    const [delivery] = await pending();
    expect(delivery?.last_error).not.toBeNull();
    if (delivery === undefined) throw new Error('nothing is pending');
    return delivery;
  }, patiently);
}

test('a webhook is told what it listens to, once, signed, and nothing else', async () => {
  await told(
    webhook(),
    webhook({ name: 'kills', events: ['kill.raised'] }),
    webhook({ name: 'elsewhere', targets: ['another'] }),
  );
  await happen('ledger-db', 'crm-db');
  await vi.waitFor(async () => expect(await pending()).toEqual([]), patiently);
  expect(outcomes).toEqual(['oncall delivered 1', 'oncall delivered 1']);
  expect(receiver.received.map(({ type }) => type)).toEqual(['target.paused', 'target.paused']);
  expect(new Set(receiver.received.map(({ id }) => id)).size).toBe(2);
  for (const message of receiver.received) {
    expect(isSignedBy(KEY, message)).toBe(true);
    expect(isSignedBy(OLD_KEY, message)).toBe(false);
    expect(JSON.parse(message.body).data).toMatchObject({ target: expect.stringMatching(/-db$/) });
  }
  expect(await state()).toMatchObject({ pending: 0, givenUp: 0, failingSince: null, lastSuccessAt: expect.any(Date) });
});

test('what nobody listens to costs the store no row, and what is ordinary is ordinary to the store too', async () => {
  await declare(webhook({ events: ['kill.*'] }));
  await happen('ledger-db');
  expect(await house.onStore('SELECT FROM mayfly.webhook_deliveries')).toEqual([]);
  const [trigger] = await house.onStore<{ text: string }>(
    `SELECT prosrc AS text FROM pg_proc WHERE oid = 'mayfly.tell_webhooks'::regproc`,
  );
  const [, list = ''] = /e\.type NOT IN \(([^)]*)\)/.exec(trigger?.text ?? '') ?? [];
  expect(new Set([...list.matchAll(/'([a-z_.]+)'/g)].map(([, type]) => type))).toEqual(new Set(ordinaryEvents));
});

test('news of thousands in one statement reaches each webhook that listens, in that statement', async () => {
  await declare(
    webhook(),
    webhook({ name: 'one', targets: ['target-7'] }),
    webhook({ name: 'kills', events: ['kill.*'] }),
  );
  await happen(...Array.from({ length: 3_000 }, (_, index) => `target-${index}`));
  expect((await listWebhookStates(house.db)).map(({ name, pending: count }) => [name, count])).toEqual([
    ['kills', 0],
    ['oncall', 3_000],
    ['one', 1],
  ]);
  const triggers = await house.onStore(
    `SELECT FROM pg_trigger WHERE tgfoid = 'mayfly.tell_webhooks'::regproc AND tgtype & 1 = 0 AND tgnewtable IS NOT NULL`,
  );
  expect(triggers).toHaveLength(1);
});

test('a grant that drift, a signal or an operator ended is news; one whose work is done is not', async () => {
  await declare(webhook({ events: ['grant.ended'] }));
  await house.db.transaction({}, async (tx) => {
    for (const cause of ['completed', 'released', 'expired', 'drift', 'operator'])
      tx.record({ ...targetEvent('grant.ended', house.deps, 'ledger-db', { target: 'ledger-db' }), cause });
  });
  const rows = await house.onStore<{ cause: string }>(
    'SELECT e.cause FROM mayfly.webhook_deliveries d JOIN mayfly.audit_events e ON e.id = d.event_id ORDER BY e.cause',
  );
  expect(rows.map(({ cause }) => cause)).toEqual(['drift', 'operator']);
});

test('while a secret is replaced, receivers that know either are content', async () => {
  await told(webhook({ secrets: ['file:key', 'file:old'] }));
  await happen('ledger-db');
  await vi.waitFor(() => expect(receiver.received).toHaveLength(1), patiently);
  const [message] = receiver.received;
  expect(message && [KEY, OLD_KEY].map((key) => isSignedBy(key, message))).toEqual([true, true]);
});

test.each([
  ['500', 500, 'http_500'],
  ['a redirect, which is not followed', 302, 'http_302'],
  ['a status that there is not', 599, 'http_599'],
  ['nothing but a closed connection', (response) => void response.destroy(), 'connection'],
  ['no HTTP', (response) => void response.socket?.end('nonsense\r\n\r\n'), 'protocol'],
] satisfies [string, WebhookReceiver['answer'], string][])(
  'a receiver that answers %s has not taken it: it gets the same message later',
  async (_what, answer, error) => {
    receiver.answer = answer;
    await told(webhook());
    await happen('ledger-db');
    const first = await untilFailed();
    expect(first.last_error).toBe(error);
    expect(await state()).toMatchObject({ lastError: error, failingSince: expect.any(Date), pending: 1 });
    expect(house.logs[0]).toEqual({
      event: { webhook: 'oncall', event_id: first.event_id, attempts: 1, error },
      message: 'a webhook was not told',
    });
    receiver.answer = 204;
    await passTime();
    await vi.waitFor(async () => expect((await state()).failingSince).toBeNull(), patiently);
    expect(receiver.received.length).toBeGreaterThan(1);
    expect(new Set(receiver.received.map(({ path }) => path))).toEqual(new Set(['/hook']));
    expect(new Set(receiver.received.map(({ id }) => id))).toEqual(new Set([`evt_${first.event_id}`]));
  },
);

test('an answer without end is not read', async () => {
  let ended = false;
  receiver.answer = (response) => {
    response.on('close', () => {
      ended = true;
    });
    response.writeHead(200);
    const pour = () => {
      if (ended) return;
      response.write(Buffer.alloc(65_536));
      setImmediate(pour);
    };
    pour();
  };
  await told(webhook());
  await happen('ledger-db');
  await vi.waitFor(() => expect(outcomes).toEqual(['oncall delivered 1']), patiently);
  await vi.waitFor(() => expect(ended).toBe(true), patiently);
});

test('a receiver that answers nothing holds up no other, and is given ten seconds', async () => {
  const sick = await startReceiver();
  sick.answer = () => {};
  try {
    await told(webhook({ name: 'sick', url: sick.url }), webhook());
    await happen('ledger-db');
    await vi.waitFor(() => expect([sick.received.length, outcomes]).toEqual([1, ['oncall delivered 1']]), patiently);
    await happen('crm-db');
    await vi.waitFor(() => expect(outcomes).toContain('sick failed 1'), patiently);
    expect(outcomes.filter((one) => one === 'oncall delivered 1')).toHaveLength(2);
    await vi.waitFor(
      async () => expect(await state('sick')).toMatchObject({ lastError: 'timeout', pending: 2 }),
      patiently,
    );
  } finally {
    sick.stop();
  }
});

test.each([
  [429, 'seconds', () => '600', 600],
  [503, 'a date', () => new Date(Date.now() + 3_600_000).toUTCString(), 3_600],
  [503, 'too many seconds', () => '999999999', 6 * 3_600],
])('of %i with a Retry-After of %s it is told nothing before', async (status, _what, retryAfter, seconds) => {
  receiver.answer = (response) => response.writeHead(status, { 'retry-after': retryAfter() }).end();
  await told(webhook());
  await happen('ledger-db');
  const delivery = await untilFailed();
  expect(delivery.seconds).toBeLessThanOrEqual(seconds);
  expect(delivery.seconds).toBeGreaterThan(seconds - 300);
  expect(((await state()).holdUntil?.getTime() ?? 0) - Date.now()).toBeGreaterThan((seconds - 300) * 1000);
  await happen('crm-db');
  await new Promise((resolve) => setTimeout(resolve, 1_500));
  expect(receiver.received).toHaveLength(1);
});

test('one that answers 410 is told nothing more until another revision', async () => {
  receiver.answer = 410;
  await told(webhook());
  await happen('ledger-db');
  await vi.waitFor(async () => expect((await state()).disabledAt).toBeInstanceOf(Date), patiently);
  receiver.answer = 204;
  await passTime();
  await happen('crm-db');
  await new Promise((resolve) => setTimeout(resolve, 1_500));
  expect(receiver.received).toHaveLength(1);
  await declare(webhook());
  await passTime();
  await vi.waitFor(async () => expect(await state()).toMatchObject({ pending: 0, failingSince: null }), patiently);
  expect(receiver.received).toHaveLength(3);
});

test('two replicas tell each once', async () => {
  const targets = Array.from({ length: 40 }, (_, index) => `target-${index}`);
  await declare(webhook());
  start([webhook()]);
  start([webhook()]);
  await happen(...targets);
  await vi.waitFor(async () => expect((await state()).pending).toBe(0), patiently);
  expect(receiver.received).toHaveLength(40);
  expect(new Set(receiver.received.map(({ id }) => id)).size).toBe(40);
});

test('what a replica had in hand when it ended is told by another, as the same message', async () => {
  receiver.answer = () => {};
  await declare(webhook());
  const first = start([webhook()]);
  await happen('ledger-db');
  await vi.waitFor(() => expect(receiver.received).toHaveLength(1), patiently);
  await first.stop();
  expect(await pending()).toMatchObject([{ attempts: 1, last_error: null }]);
  receiver.answer = 204;
  start([webhook()]);
  // Not before its lease is over.
  await passTime();
  await vi.waitFor(() => expect(outcomes).toEqual(['oncall delivered 1']), patiently);
  const [one, other] = receiver.received;
  expect(one?.id).toBe(other?.id);
});

test('a failure that comes late changes nothing of what another replica has in hand, or has told', async () => {
  let answerLate = () => {};
  receiver.answer = (response) => {
    receiver.answer = 204;
    answerLate = () => response.writeHead(500).end();
  };
  await declare(webhook());
  start([webhook()]);
  await happen('ledger-db');
  await vi.waitFor(() => expect(receiver.received).toHaveLength(1), patiently);
  await passTime();
  start([webhook()]);
  await vi.waitFor(async () => expect((await state()).pending).toBe(0), patiently);
  answerLate();
  // It is recorded after it is counted.
  await vi.waitFor(async () => expect((await state()).lastError).toBe('http_500'), patiently);
  expect(await pending()).toEqual([]);
});

test('what nobody took in three days is given up, counted, and forgotten after thirty', async () => {
  receiver.answer = 500;
  await declare(webhook());
  await happen('ledger-db');
  await house.onStore(`UPDATE mayfly.webhook_deliveries SET created_at = clock_timestamp() - interval '73 hours'`);
  await happen('crm-db');
  start([webhook()]);
  await vi.waitFor(() => expect(outcomes).toContain('oncall given_up 1'), patiently);
  expect(await state()).toMatchObject({ givenUp: 1, pending: 1 });
  await house.onStore(
    `UPDATE mayfly.webhook_deliveries SET given_up_at = clock_timestamp() - interval '31 days' WHERE given_up_at IS NOT NULL`,
  );
  start([webhook()]);
  await vi.waitFor(async () => expect((await state()).givenUp).toBe(0), patiently);
});

test('what a webhook that left the catalog was not told is given up, and it is forgotten with the last of it', async () => {
  await declare(webhook());
  await happen('ledger-db');
  await declare();
  start([]);
  await vi.waitFor(() => expect(outcomes).toEqual(['oncall given_up 1']), patiently);
  expect(await listWebhookStates(house.db)).toEqual([]);
  await house.onStore(`UPDATE mayfly.webhook_deliveries SET given_up_at = clock_timestamp() - interval '31 days'`);
  // The first looks clear the rows, the next what no row is left of.
  start([]);
  await vi.waitFor(
    async () => expect(await house.onStore('SELECT FROM mayfly.webhook_deliveries')).toEqual([]),
    patiently,
  );
  start([]);
  await vi.waitFor(async () => expect(await house.onStore('SELECT FROM mayfly.webhooks')).toEqual([]), patiently);
});

test.each([
  ['a name that leads to the machine itself', { url: 'https://localhost:1/' }, 'address_refused'],
  ['an address of the machine itself', { url: 'https://127.0.0.1:1/' }, 'address_refused'],
  ['the metadata of a cloud', { url: 'https://169.254.169.254/latest' }, 'address_refused'],
  ['the same, spelt for IPv6', { url: 'https://[::ffff:169.254.169.254]/latest' }, 'address_refused'],
  [
    'an address beside those that it declares',
    { url: 'https://192.0.2.1/', addresses: ['198.51.100.0/24'] },
    'address_refused',
  ],
  ['a name that leads nowhere', { url: 'https://nowhere.invalid/' }, 'dns'],
  ['a reference to what is no https', { url: 'file:url' }, 'url_invalid'],
  ['a reference to what is no secret', { secrets: ['file:none'] }, 'secret_invalid'],
  ['a reference that leads nowhere', { secrets: ['file:gone'] }, 'secret_missing'],
] satisfies [string, Partial<Webhook>, string][])('nothing is sent to %s', async (_what, over, error) => {
  const one = webhook({ dev: false, url: 'https://hooks.example/', ...over });
  await declare(one);
  start([one], {
    secret: (_owner, reference) => {
      if (reference === 'file:gone') throw new Error('not there');
      return new Secret(reference === 'file:url' ? receiver.url : reference === 'file:none' ? 'changeme' : KEY);
    },
  });
  await happen('ledger-db');
  expect(await untilFailed()).toMatchObject({ last_error: error });
  expect(receiver.received).toEqual([]);
});

test('Slack is told one at a time, without a signature', async () => {
  const slack = webhook({ format: 'slack', secrets: [], url: 'file:url' });
  await declare(slack);
  start([slack], { secret: () => new Secret(receiver.url) });
  await happen('ledger-db', 'crm-db');
  await vi.waitFor(async () => expect((await state()).pending).toBe(0), patiently);
  expect(receiver.received.map(({ signatures }) => signatures)).toEqual([[''], ['']]);
  expect(JSON.parse(receiver.received[0]?.body ?? '').text).toMatch(
    /^Mayfly: target\.paused at .*\nresource: ledger-db/,
  );
});

test('a message whose fate could not be recorded lets go of no other that is on its way', async () => {
  let answerHeld = () => {};
  receiver.answer = (response) => {
    receiver.answer = (other) => void other.writeHead(204).end();
    answerHeld = () => void response.writeHead(204).end();
  };
  let failures = 0;
  const db = new Proxy(house.db, {
    get: (real, key) =>
      key !== 'query'
        ? Reflect.get(real, key, real)
        : async (query: { readonly name?: string }) => {
            if (query.name === 'mark_delivered' && failures === 0) {
              failures += 1;
              throw new Error('away');
            }
            return await Reflect.apply(Reflect.get(real, key, real), real, [query]);
          },
  });
  await declare(webhook());
  await happen('ledger-db', 'crm-db');
  start([webhook()], { db });
  await vi.waitFor(() => expect([receiver.received.length, failures]).toEqual([2, 1]), patiently);
  await happen('wiki-db');
  await new Promise((resolve) => setTimeout(resolve, 1_500));
  expect(receiver.received).toHaveLength(2);
  answerHeld();
  await vi.waitFor(() => expect(outcomes.length).toBeGreaterThanOrEqual(2), patiently);
  expect(house.logs.map(({ message }) => message)).toContain('a webhook can not be told now');
});

test('a store that is away is asked again', async () => {
  const lanes = start([webhook()], {
    db: new Proxy(house.db, {
      get: () => () => Promise.reject(new Error('away')),
    }),
  });
  await vi.waitFor(() => expect(house.logs.length).toBeGreaterThan(1), patiently);
  expect(house.logs.map(({ message }) => message)).toContain('webhooks can not be read now');
  await lanes.stop();
});
