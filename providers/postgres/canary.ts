import { type CheckStep, type Minted, type Ref } from '../../src/provider.ts';
import { boundRows, canaryParams, recorded } from './canary-bound.ts';
import { Connection } from './connection.ts';
import { AgentEndpoint } from './endpoint.ts';
import { fence } from './fence.ts';
import { guarantee } from './guarantee.ts';
import { handleOf } from './handle.ts';
import { mint } from './mint.ts';
import { allowed, nothingMore, refused, says } from './probe.ts';
import { reap } from './reap.ts';
import type { PostgresEntitlement } from './schema.ts';
import { verifyEverywhere } from './standby-verify.ts';
import type { Target } from './target.ts';

/** Seconds that a canary may live at most, if this process dies in the middle. */
const life = 60;

/** One life of an entitlement, from mint to verified end. Nothing of it is left, whatever fails on the way. */
export async function canary(
  target: Target,
  entitlement: string,
  config: PostgresEntitlement,
  grantId: string,
  serverVersion: number,
  signal: AbortSignal,
): Promise<readonly CheckStep[]> {
  let ref: Ref = { grantId, handle: handleOf(grantId), facts: null, deadline: new Date(Date.now() + life * 1000) };
  const steps: CheckStep[] = [];
  let session: Connection | undefined;
  let endpoint: AgentEndpoint | undefined;
  try {
    const { max_ttl_seconds: longest } = await guarantee(target, config, signal);
    const deadline = new Date(Date.now() + Math.min(life, longest) * 1000);
    const params = await canaryParams(target, config, signal);
    const request = { grantId, entitlement, config, params, deadline, notAfter: deadline, mintBy: deadline };
    const minted = await step(steps, 'mint', () => mint(target, ref, request, signal), `${ref.handle} was minted`);
    ref = { ...ref, facts: minted.facts };
    session = await step(steps, 'login', () => login(target, minted, signal), 'the minted role logs in');
    await allowed(steps, session, config, signal);
    await refused(steps, session, config, serverVersion, signal);
    await nothingMore(steps, session, config, signal);
    endpoint = new AgentEndpoint(target, minted);
    await endpoint.enter(steps, signal);
    await boundRows(steps, session, config, params, signal);
    await recorded(steps, session, config, signal);
  } catch (error) {
    if (!(error instanceof StepFailed)) {
      steps.push({ step: 'canary', ok: false, says: says(error) });
    }
  }
  // The end has a patience of its own: it must happen also when the rest used up the caller's.
  const ending = AbortSignal.timeout(20_000);
  try {
    await end(steps, target, ref, session, ending, endpoint);
  } catch (error) {
    steps.push({ step: 'end', ok: false, says: says(error) });
  }
  await endpoint?.close();
  await session?.close();
  return steps;
}

class StepFailed extends Error {}

async function step<T>(steps: CheckStep[], name: string, work: () => Promise<T>, good: string): Promise<T> {
  try {
    const result = await work();
    steps.push({ step: name, ok: true, says: good });
    return result;
  } catch (error) {
    steps.push({ step: name, ok: false, says: says(error) });
    throw new StepFailed(name, { cause: error });
  }
}

function login(target: Target, minted: Minted, signal: AbortSignal): Promise<Connection> {
  // By the broker's own way to the target: it need not reach the endpoint of the agents.
  const { host, port, database } = target.config;
  const { username, password } = minted.secret.reveal();
  const as = { host, port, database, user: String(username), password: String(password) };
  return Connection.open(target.config, as, { statement: 5000, lock: 2000 }, signal);
}

async function end(
  steps: CheckStep[],
  target: Target,
  ref: Ref,
  session: Connection | undefined,
  signal: AbortSignal,
  endpoint: AgentEndpoint | undefined,
): Promise<void> {
  const [fenced] = await fence(target, [ref], signal);
  steps.push({
    step: 'fence',
    ok: fenced?.ok === true,
    says: fenced?.ok === true ? 'login cut, sessions ended' : says(fenced?.error),
  });
  if (session !== undefined) {
    const dead = await session.query('after the end', 'SELECT 1', [], signal).then(
      () => false,
      () => true,
    );
    steps.push({
      step: 'session_ended',
      ok: dead,
      says: dead ? 'its open session is dead' : 'its session still works',
    });
  }
  await endpoint?.left(steps, signal);
  const [reaped] = await reap(target, [ref], signal);
  const [verdict] = await verifyEverywhere(target, [ref], signal);
  const clean = verdict?.ok === true && verdict.clean;
  steps.push({
    step: 'verify',
    ok: clean && reaped?.ok === true,
    says: clean ? 'gone, by OID and by name' : verdict?.ok === false ? says(verdict.error) : 'something of it is left',
  });
}
