import { setTimeout as sleep } from 'node:timers/promises';
import { AgentKey, type Credential, type MayflyClient, type MintedBody } from '../../src/client/index.ts';
import { note, say, styled, table } from '../../src/cli/output.ts';
import {
  entitlements,
  haveSystems,
  startThreeSystems,
  type System,
  SYSTEMS,
  type ThreeSystems,
} from '../support/three-systems.ts';

/** How long a credential may still work after its task is over. */
const PATIENCE_MILLIS = 120_000;

interface Held {
  readonly system: System;
  readonly grant: MintedBody;
  readonly credential: Credential;
}

/** One task, three systems, one end. Fails where it is not as told. */
export async function playThreeSystems(): Promise<void> {
  if (!haveSystems) {
    note('This story needs an AWS and an OpenBao: npm run test:servers -- ministack openbao (some minutes, once).');
    process.exitCode = 1;
    return;
  }
  const systems = await startThreeSystems({ proofOfPossession: 'required' });
  try {
    await play(systems);
  } finally {
    await systems.stop();
  }
}

async function play(systems: ThreeSystems): Promise<void> {
  const { house } = systems;
  const key = await AgentKey.make();
  const client = house.client('agent-recon', house.url, key);

  step('The orchestrator signs one task with three entitlements, for this agent’s key; the agent opens it.');
  const names = SYSTEMS.map((system) => entitlements[system].confidential);
  const { task } = await client.openTask(await house.sign({ entitlements: names, keyThumbprint: key.thumbprint }));
  seen(`${task.id} is ${task.state} until ${task.not_after}`);

  step('It asks for one credential in each system.');
  const held = await Promise.all(SYSTEMS.map((system) => ask(client, task.id, system)));
  for (const { system, grant, credential } of held) {
    seen(`${entitlements[system].confidential}: ${identityOf(system, credential)} until ${grant.deadline}`);
    seen(styled('dim', `  ${guaranteeOf(credential)}`));
  }

  step('It uses each.');
  for (const { system, credential } of held) {
    check(await systems.works(system, credential), `the credential of ${system} does not work`);
    seen(`${system}: works`);
  }

  step('It completes the task: one call.');
  const began = performance.now();
  const ended = Promise.all(held.map((one) => refusedAfter(systems, one, began)));
  const { revocations } = await client.complete(task.id, { wait: 60 });
  const contained = performance.now() - began;
  const refused = await ended;
  for (const { target, state, evidence } of revocations) {
    check(state === 'contained' || state === 'clean', `${target} is ${state}`);
    seen(`${target}: ${state}. Seen there: ${JSON.stringify(evidence)}`);
  }
  check(revocations.length === SYSTEMS.length, `${revocations.length} revocations`);
  seen(`all contained ${contained.toFixed(0)} ms after the call`);

  step('It tries each once more.');
  for (const { system, credential } of held)
    check(!(await systems.works(system, credential)), `the credential of ${system} still works`);
  const rows = held.map(({ system }, index) => [
    system,
    'refused',
    `${(refused[index] ?? 0).toFixed(0)} ms after the call`,
  ]);
  for (const line of table(rows).split('\n')) seen(line);

  step('What the evidence says, from the audit rows.');
  const events = (await client.timeline(task.id)).filter(({ type }) => /^(task|grant|revocation)\./.test(type));
  for (const line of table(events.map(({ ts, type, resource }) => [ts, type, resource])).split('\n')) seen(line);
  for (const type of ['grant.activated', 'revocation.contained'])
    check(events.filter((event) => event.type === type).length === SYSTEMS.length, `not three events ${type}`);
  say();
  say(styled('green', 'The story is as told: one end took back what the task held in three systems.'));
}

async function ask(client: MayflyClient, task: string, system: System): Promise<Held> {
  const { confidential: entitlement } = entitlements[system];
  return { system, ...(await client.issue(task, { entitlement, ttl_seconds: 300 })) };
}

/** Tries it until it is refused. Milliseconds since `began`. */
async function refusedAfter(systems: ThreeSystems, { system, credential }: Held, began: number): Promise<number> {
  while (performance.now() - began < PATIENCE_MILLIS) {
    if (!(await systems.works(system, credential))) return performance.now() - began;
    await sleep(20);
  }
  throw new Error(`The demo is not as told: the credential of ${system} still works.`);
}

/** What is no secret of it. */
function identityOf(system: System, credential: Credential): string {
  return system === 'aws' ? `key ${String(credential['access_key_id'])}` : `user ${String(credential['username'])}`;
}

function guaranteeOf({ guarantee }: Credential): string {
  return typeof guarantee === 'object' && guarantee !== null && 'says' in guarantee ? String(guarantee.says) : '';
}

let steps = 0;
function step(what: string): void {
  say();
  say(styled('bold', `${++steps}. ${what}`));
}

function seen(what: string): void {
  say(`   ${what}`);
}

function check(holds: boolean, otherwise: string): void {
  if (!holds) throw new Error(`The demo is not as told: ${otherwise}.`);
}
