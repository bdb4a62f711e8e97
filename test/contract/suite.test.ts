import { once } from 'node:events';
import { connect, createServer } from 'node:net';
import { describe, expect, test } from 'vitest';
import { Secret } from '../../src/provider.ts';
import { answers, lies, mixesUp, refuses } from '../support/synthetic/faults.ts';
import type { SyntheticTarget } from '../support/synthetic/target.ts';
import { syntheticDriver } from './drivers/synthetic.ts';
import { type Driver, tcpFaults } from './provider/index.ts';
import { Notes } from './provider/notes.ts';
import { broadens, runCase } from './suite-run.ts';

const all = (change: object) => answers((honest) => honest.map((answer) => ({ ...Object(answer), ...change })));

describe('the provider suite', () => {
  test.each([
    ['a fence that lies', /was not contained/, 'fence: access is cut', (target) => target.faults.set('fence', lies)],
    ['answers in another order', /in another order/, 'fence: a batch', (target) => target.faults.set('fence', mixesUp)],
    [
      'one answer too few',
      /not as many as the refs/,
      'fence: a batch',
      (target) =>
        target.faults.set(
          'verify',
          answers((honest) => honest.slice(1)),
        ),
    ],
    [
      'a verdict that lies',
      /works was called contained/,
      'verify: open before',
      (target) => target.faults.set('verify', all({ contained: true })),
    ],
    [
      'an end that is slower than promised',
      /took longer than/,
      'guarantee: an early end',
      (target) => (target.system.propagationMillis = 20_000),
    ],
    [
      'a list that lacks what lives',
      /lives is not listed/,
      'list: what lives',
      (target) =>
        target.faults.set(
          'list',
          answers(() => []),
        ),
    ],
    [
      'a mark of somebody else',
      /strictly equal/,
      'list: what lives',
      (target) => target.faults.set('list', all({ installation: 'x' })),
    ],
    [
      'a reap that leaves it',
      /was not clean|was left/,
      'reap: nothing is left',
      (target) => target.faults.set('reap', lies),
    ],
    [
      'facts that are no facts',
      /is no string/,
      'mint: what was minted works',
      (target) => target.faults.set('mint', broadens({ facts: { a: {} } })),
    ],
    [
      'an end past its deadline',
      /expires after its deadline/,
      'mint: what was minted works',
      (target) => target.faults.set('mint', broadens({ expiresAt: new Date(8e15) })),
    ],
    [
      'an unclassified failure',
      /no ProviderError/,
      'race: a mint after',
      (target) => target.faults.set('mint', { answer: () => Promise.reject(new Error('no')) }),
    ],
    [
      'a secret that is none',
      /no Secret/,
      'mint: what was minted works',
      (target) => target.faults.set('mint', broadens({ secret: {} })),
    ],
  ] satisfies readonly (readonly [string, RegExp, string, (target: SyntheticTarget) => unknown])[])(
    'fails %s',
    async (_what, says, name, sicken) => {
      await expect(runCase(syntheticDriver('handles', sicken), name)).rejects.toThrow(says);
      await expect(runCase(syntheticDriver('handles'), name)).resolves.toBeDefined();
    },
  );

  test('says what is not applicable, and why, and does not call it passed', async () => {
    const result = await runCase(syntheticDriver('handles'), 'mint: it does exactly what its entitlement allows');
    expect(result).toEqual({ notApplicable: 'an identity in memory has no rights' });
  });

  test('does not start with a driver that lacks something and does not say why', async () => {
    const whole = syntheticDriver('handles');
    const driver: Driver = { ...whole, start: async () => ({ ...(await whole.start()), without: {} }) };
    await expect(runCase(driver, 'handle:')).rejects.toThrow(/`exceed`: it must say in `without` why not/);
  });

  test('a case that fails is not hidden by what fails after it', async () => {
    const sicken = (target: SyntheticTarget) => target.faults.set('verify', refuses('denied', 'The first failure.'));
    await expect(runCase(syntheticDriver('handles', sicken), 'fence: access is cut')).rejects.toThrow(
      'The first failure.',
    );
  });
});

test('secrets are found in clear, in base64, in hidden members and in print, and never repeated', () => {
  const notes = new Notes();
  try {
    notes.mustHide('hunter-2/hunter');
    const error = Object.defineProperty(new Error('it failed'), 'request', { value: { auth: 'hunter-2/hunter' } });
    notes.hear('an error', error);
    notes.hear('a header', { authorization: Buffer.from('broker:hunter-2/hunter').toString('base64') });
    notes.hear('a URL', 'redis://:hunter-2%2Fhunter@cache');
    notes.hear('a secret', new Secret('hunter-2/hunter'));
    notes.hear('nothing', { handle: 'hunter' });
    console.debug('hunter-2/hunter');
    expect(notes.leaks()).toEqual(['an error', 'a header', 'a URL', 'printed']);
    // The id of a lease is kept among the facts, and told nowhere else.
    notes.mustHideButInFacts('database/creds/AbC');
    notes.hear('an answer of mint', { facts: { lease_id: 'database/creds/AbC' } });
    notes.hear('an answer of verify', [{ ok: true, evidence: { lease: 'database/creds/AbC' } }]);
    expect(notes.leaks()).not.toContain('an answer of mint');
    expect(notes.leaks()).toContain('an answer of verify');
  } finally {
    notes.stop();
  }
});

test('a faulty way to a system passes, hangs, refuses, garbles and holds', async () => {
  const server = createServer((socket) => socket.on('data', (piece) => socket.write(`${String(piece)}!`)));
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = Object(server.address());
  const proxy = await tcpFaults(port, 'nonsense');
  const asked = async (text: string, patience = 60_000): Promise<string> => {
    const socket = connect(proxy.port, proxy.host);
    const heard: string[] = [];
    socket.on('error', () => heard.push('refused')).on('data', (piece) => heard.push(String(piece)));
    socket.write(text);
    await Promise.race([
      once(socket, 'data'),
      once(socket, 'close'),
      new Promise((resolve) => setTimeout(resolve, patience)),
    ]).catch(() => {});
    socket.destroy();
    return heard.join('');
  };
  try {
    expect(await asked('a')).toBe('a!');
    proxy.hang();
    expect(await asked('b', 300)).toBe('');
    proxy.heal();
    proxy.garble();
    expect(await asked('c')).toBe('nonsense');
    proxy.heal();
    const held = proxy.hold(1);
    expect(await asked('d')).toBe('d!');
    const late = asked('e');
    await held.reached;
    expect(await asked('f')).toBe('f!');
    held.release();
    expect(await late).toBe('e!');
    proxy.refuse();
    expect(await asked('g')).toBe('refused');
  } finally {
    await proxy.close();
    server.close();
  }
});
