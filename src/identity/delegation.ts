import { createHash } from 'node:crypto';
import { compactVerify } from 'jose';
import { z } from 'zod';
import type { TaskIssuer } from '../catalog/types.ts';
import { MayflyError } from '../domain/errors.ts';
import { wireId } from '../domain/ids.ts';
import { type CompactJws, decodeCompactJws, isJsonObject, readClaims } from './compact-jws.ts';
import { PROOF_ALGORITHMS } from './dpop.ts';
import { readKeyBinding } from './key-binding.ts';
import type { KeySets } from './key-sets.ts';
import { requestRefusals } from './refusals.ts';
import { verifySigned } from './signed-token.ts';
import { requestTimesSchema, taskClaimsSchema } from './task-claims.ts';
import { nameableSources, read, readCeiling, refuseMisplaced, requireAlive, signedByIssuer } from './task-request.ts';
import { requireAudience } from './token-claims.ts';
import type { Delegating, Delegation, VerifyContext } from './types.ts';
import { vetPublicKey, type VettedKey } from './vet-keys.ts';

const TYPE = 'agent-delegation+jwt';
const byIssuer = signedByIssuer(TYPE);
const OWNERS_HEADERS = new Set(['alg', 'typ', 'jwk']);

const { jti, act, task, delivery_jkt } = taskClaimsSchema.shape;
/** DESIGN §4, Delegations. On whose behalf, and what for in the end, is the parent's and stands in the registry. */
const delegationClaimsSchema = z.object({
  ...{ jti, act, delivery_jkt },
  task: task.omit({ id: true, intent_hash: true }),
});

/**
 * The word by which a task gets a child: signed by the very key that the task names, with `iss` its own id, or by the issuer that
 * stated the task, with `parent_task_id`. In the order of a request's checks.
 * @throws MayflyError with the failing step's own code.
 */
export async function verifyDelegation(
  compact: string,
  parent: Delegating,
  context: VerifyContext,
  keySets: KeySets,
): Promise<Delegation> {
  const { trust, audience, now } = context;
  const jws = decodeCompactJws(compact, requestRefusals);
  const claims = readClaims(jws, requestRefusals);
  if (jws.header['typ'] !== TYPE) throw new MayflyError('request_type_wrong');
  const own = wireId('task', parent.id);
  const iss = claims['iss'] === own ? own : parent.issuer;
  if (iss === own) await verifyByOwner(jws, parent);
  else {
    const { issuer } = await verifySigned(compact, byIssuer, trust.taskIssuers, keySets);
    if (issuer.issuer !== parent.issuer || claims['parent_task_id'] !== own)
      throw new MayflyError('request_task_wrong');
  }
  requireAudience(claims, audience, requestRefusals);
  const times = read(requestTimesSchema, claims);
  requireAlive(times, now);
  refuseMisplaced(claims);
  const keyThumbprint = readKeyBinding(claims);
  const stated = read(delegationClaimsSchema, claims);
  const issuer = trust.taskIssuers.find((one) => one.issuer === parent.issuer);
  if (issuer === undefined)
    throw new MayflyError('issuer_may_not_state', 'The catalog does not trust the issuer of this task any more.');
  if (parent.subject === stated.act.sub && !issuer.autonomous)
    throw new MayflyError('issuer_may_not_state', 'It may not state tasks that an agent does on its own behalf.');
  if (keyThumbprint === null && issuer.proofOfPossession === 'required') throw new MayflyError('request_key_missing');
  const notAfter = new Date(stated.task.not_after * 1000);
  if (notAfter <= now) throw new MayflyError('request_deadline_past');
  return {
    iss,
    jti: stated.jti,
    payloadDigest: createHash('sha256').update(jws.payload).digest(),
    expiresAt: new Date(times.exp * 1000),
    workload: { source: onlySource(issuer, stated, context), subject: stated.act.sub },
    keyThumbprint,
    deliveryThumbprint: stated.delivery_jkt ?? null,
    purpose: stated.task.purpose,
    phase: stated.task.phase ?? null,
    notAfter,
    maxDepth: stated.task.max_depth,
    ceiling: readCeiling(claims['authorization_details']),
  };
}

/** Besides a proof the one place where a key in the header counts: it must be the one that the registry has. */
async function verifyByOwner(jws: CompactJws, parent: Delegating): Promise<void> {
  const { alg, jwk } = jws.header;
  if (typeof alg !== 'string' || !PROOF_ALGORITHMS.includes(alg)) throw new MayflyError('request_algorithm_refused');
  if (!Object.keys(jws.header).every((name) => OWNERS_HEADERS.has(name)))
    throw new MayflyError('request_header_refused', 'Signed by the task’s own key it has only `alg`, `typ` and `jwk`.');
  const vetted = isJsonObject(jwk) ? vet(jwk, alg) : undefined;
  if (vetted === undefined || vetted.thumbprint !== parent.keyThumbprint)
    throw new MayflyError('request_key_unknown', 'The key in `jwk` is not the one that the task names.');
  try {
    await compactVerify(jws.text, vetted.key, { algorithms: [alg] });
  } catch (cause) {
    throw new MayflyError('request_signature_invalid', undefined, { cause });
  }
}

function vet(jwk: Parameters<typeof vetPublicKey>[0], alg: string): Omit<VettedKey, 'kid'> {
  try {
    return vetPublicKey(jwk, [alg]);
  } catch (error) {
    throw new MayflyError('request_key_unknown', error instanceof Error ? `The key ${error.message}.` : undefined);
  }
}

/** The child stands in the registry before anybody shows a token: its workload must be one, not one of several. */
function onlySource(issuer: TaskIssuer, stated: Parameters<typeof nameableSources>[1], context: VerifyContext): string {
  const [source, another] = nameableSources(issuer, stated, context.trust);
  if (source === undefined || another !== undefined)
    throw new MayflyError(
      'issuer_may_not_state',
      'Several sources have a workload of that subject: say which, by `act.iss`.',
    );
  return source;
}
