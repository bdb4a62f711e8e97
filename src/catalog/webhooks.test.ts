import { expect, test } from 'vitest';
import { loadCatalog } from './load.ts';
import { faultLines, load, sampleProviders, sampleWith } from './testing/sample.ts';

const files = (webhooks: string) => sampleWith({ 'webhooks.yaml': webhooks });
const one = (members: string) => files(`- { name: oncall, events: [kill.*], secret: file:key, ${members} }`);
const URL_OF = 'url: https://hooks.example/mayfly';

test('a webhook comes out as it was said, and signs with the old secret too while that is there', () => {
  const { webhooks } = load(
    files(`
- name: oncall
  url: https://hooks.example/mayfly
  events: [kill.*, revocation.overdue, revocation.contained_late]
  secret: env:MAYFLY_WEBHOOKS_ONCALL_KEY
  old_secret: file:old-key
  targets: [ledger]
  addresses: [10.1.0.0/16]
- { name: chat, format: slack, url: file:url, events: [grant.ended] }
`),
  );
  expect(webhooks).toEqual([
    {
      ...{ name: 'oncall', dev: false, url: 'https://hooks.example/mayfly', format: 'standard' },
      events: ['kill.*', 'revocation.overdue', 'revocation.contained_late'],
      secrets: ['env:MAYFLY_WEBHOOKS_ONCALL_KEY', 'file:old-key'],
      ...{ targets: ['ledger'], addresses: ['10.1.0.0/16'] },
    },
    {
      ...{ name: 'chat', dev: false, url: 'file:url', format: 'slack', events: ['grant.ended'], secrets: [] },
      ...{ targets: null, addresses: null },
    },
  ]);
});

test.each(['', '# none\n', '[]'])('there may be none: %j', (text) => {
  expect(load(files(text)).webhooks).toEqual([]);
});

test.each([
  ['url: http://hooks.example/', 'must be an https URL without user or fragment'],
  ['url: http://127.0.0.1:8080/', 'must be an https URL without user or fragment'],
  ['url: "https://user:password@hooks.example/"', 'must be an https URL without user or fragment'],
  ['url: hooks.example', 'must be an https URL without user or fragment'],
  ['url: file:../other/url', 'must be a path below the secrets folder of _webhooks/oncall, without `..`'],
  ['url: env:MAYFLY_DATABASE_URL', 'may only name variables that begin with MAYFLY_WEBHOOKS_ONCALL_'],
  [
    `${URL_OF}, old_secret: env:MAYFLY_TARGET_LEDGER_KEY`,
    'may only name variables that begin with MAYFLY_WEBHOOKS_ONCALL_',
  ],
  [`${URL_OF}, old_secret: whsec_c2VjcmV0`, 'must be a reference: `env:NAME` or `file:path`'],
  [`${URL_OF}, targets: [nowhere]`, 'there is no target nowhere'],
  [`${URL_OF}, targets: []`, 'must name targets, or be absent'],
  [`${URL_OF}, addresses: [hooks.example]`, 'must be an address or a CIDR block'],
  [`${URL_OF}, addresses: []`, 'must name addresses, or be absent'],
  [`${URL_OF}, dev: true`, 'only a broker in dev mode believes in this'],
  [`${URL_OF}, format: teams`, 'must be standard or slack'],
  [`${URL_OF}, retries: 3`, 'unknown field'],
  [
    'url: https://hooks.slack.example/T0/B0/secret, format: slack',
    'is itself the secret: write `env:NAME` or `file:path`',
  ],
])('refused: %s', (members, message) => {
  expect(faultLines(one(members)).join()).toContain(message);
});

test.each([
  ['grant.activated', 'nothing is told as grant.activated: see docs/webhooks.md'],
  ['revocation.contained', 'nothing is told as revocation.contained: see docs/webhooks.md'],
  ['revocation.overdu', 'nothing is told as revocation.overdu: see docs/webhooks.md'],
  ['use.*', 'nothing is told as use.*: see docs/webhooks.md'],
  ['"*"', 'must be a type of event, or a family of them: `kill.*`'],
  ['kill.*, kill.*', 'stands here twice'],
  ['', 'must name what is told'],
])('no webhook listens to %s', (events, message) => {
  const text = `- { name: oncall, events: [${events}], secret: file:key, ${URL_OF} }`;
  expect(faultLines(files(text)).join()).toContain(message);
});

test('what is signed needs a secret, and an old one a new one', () => {
  expect(faultLines(files(`- { name: a, events: [kill.*], ${URL_OF} }`)).join()).toContain('it signs what is sent');
  const slack = '- { name: a, events: [kill.*], format: slack, url: file:url, old_secret: file:old }';
  expect(faultLines(files(slack)).join()).toContain('is required beside old_secret');
});

test('a name stands once, and no variable belongs to two', () => {
  const rest = `events: [kill.*], ${URL_OF}`;
  expect(
    faultLines(files(`- { name: a, secret: file:k, ${rest} }\n- { name: a, secret: file:k, ${rest} }`)).join(),
  ).toContain('the name a stands here twice');
  const owned = `- { name: a, secret: "env:MAYFLY_WEBHOOKS_A_B_KEY", ${rest} }\n- { name: a-b, secret: file:k, ${rest} }`;
  expect(faultLines(files(owned)).join()).toContain('that variable belongs to the webhook a-b');
});

test('there are fifty at most', () => {
  const many = Array.from({ length: 51 }, (_, n) => `- { name: n${n}, events: [kill.*], secret: file:k, ${URL_OF} }`);
  expect(faultLines(files(many.join('\n'))).join()).toContain('there are at most 50 webhooks');
});

test('in dev mode one may be on loopback, and so may Slack’s', () => {
  const text = '- { name: a, dev: true, format: slack, url: "http://127.0.0.1:1/", events: [kill.*] }';
  const { webhooks } = loadCatalog(files(text), { providers: sampleProviders, allowDev: true });
  expect(webhooks).toMatchObject([{ dev: true, url: 'http://127.0.0.1:1/' }]);
  const far = text.replace('127.0.0.1', 'hooks.example');
  expect(() => loadCatalog(files(far), { providers: sampleProviders, allowDev: true })).toThrow('one fault');
});
