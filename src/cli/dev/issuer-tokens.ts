import { SignJWT } from 'jose';
import { z } from 'zod';
import { uuidv7 } from '../../domain/ids.ts';
import type { IssuerKey, IssuerName } from './issuer-keys.ts';

/** A task request opens a task within this time of its signing. DESIGN §4, Times. */
const REQUEST_SECONDS = 300;

const text = (longest: number) =>
  z
    .string()
    .min(1)
    .max(longest)
    .regex(/^[\p{L}\p{M}\p{N}\p{P}\p{S}\p{Zs}]+$/u, 'must be printable text');
/** SHA-256 thumbprint of a key (RFC 7638). */
const thumbprint = z.string().regex(/^[A-Za-z0-9_-]{43}$/, 'must be 32 bytes in base64url');
const tokenLife = z.int().min(1).max(3600);

export const workloadTokenSchema = z.strictObject({
  subject: text(2048),
  audience: text(2048),
  ttl_seconds: tokenLife.default(900),
  /** Binds the token itself: `cnf.jkt`. */
  key_thumbprint: thumbprint.optional(),
});

export const operatorTokenSchema = z.strictObject({
  subject: text(2048),
  roles: z.array(z.enum(['viewer', 'operator', 'approver', 'auditor', 'admin'])).min(1),
  audience: text(2048),
  ttl_seconds: tokenLife.default(900),
});

export const taskRequestSchema = z.strictObject({
  audience: text(2048),
  /** Who acts: `act.sub`. */
  workload_subject: text(2048),
  /** On whose behalf: `sub`. */
  subject: text(2048),
  purpose: text(200),
  phase: text(200).optional(),
  entitlements: z.array(text(200)).min(1).max(64),
  params: z.record(text(63), z.union([z.string().max(1024), z.int(), z.boolean()])).optional(),
  /** How long the task may live from now. */
  ttl_seconds: z.int().min(1).max(86_400),
  /** Longest life of one grant. */
  max_ttl_seconds: z.int().min(1).max(86_400).optional(),
  external_id: text(200).optional(),
  /** Levels of tasks that may hang below it. */
  max_depth: z.int().min(0).max(16).default(0),
  /** Of the key that the agent must prove: `cnf.jkt`. */
  key_thumbprint: thumbprint.optional(),
  /** Of another key that credentials may be sealed to: `delivery_jkt`. */
  delivery_thumbprint: thumbprint.optional(),
});

export const taskEventSchema = z.strictObject({
  audience: text(2048),
  /** The broker's id of the task. */
  task_id: text(200),
  op: z.enum(['complete', 'cancel', 'phase']),
  phase: text(200).optional(),
  reason: text(500).optional(),
});

export type WorkloadTokenInput = z.input<typeof workloadTokenSchema>;
export type OperatorTokenInput = z.input<typeof operatorTokenSchema>;
export type TaskRequestInput = z.input<typeof taskRequestSchema>;
export type TaskEventInput = z.input<typeof taskEventSchema>;

export interface SignedToken {
  /** Compact JWS. */
  readonly token: string;
  /** Its `exp`, RFC 3339. */
  readonly expires_at: string;
}

export interface Signers {
  signWorkloadToken(input: WorkloadTokenInput): Promise<SignedToken>;
  signOperatorToken(input: OperatorTokenInput): Promise<SignedToken>;
  /** DESIGN §4, "The task request". */
  signTaskRequest(input: TaskRequestInput): Promise<SignedToken>;
  /** DESIGN §4, Events. */
  signTaskEvent(input: TaskEventInput): Promise<SignedToken>;
}

interface SigningContext {
  readonly keys: Readonly<Record<IssuerName, IssuerKey>>;
  readonly issuers: Readonly<Record<IssuerName, string>>;
  readonly now: () => Date;
}

/** The signers. Each checks its input, and throws a ZodError for what does not fit. */
export function createSigners({ keys, issuers, now }: SigningContext): Signers {
  const sign = async (
    name: IssuerName,
    typ: string,
    lifeSeconds: number,
    claims: (iat: number) => Record<string, unknown>,
  ): Promise<SignedToken> => {
    const iat = Math.floor(now().getTime() / 1000);
    const exp = iat + lifeSeconds;
    const token = await new SignJWT({ ...claims(iat), iss: issuers[name], jti: uuidv7(iat * 1000), iat, exp })
      .setProtectedHeader({ alg: 'ES256', typ, kid: keys[name].kid })
      .sign(keys[name].sign);
    return { token, expires_at: new Date(exp * 1000).toISOString() };
  };

  return {
    signWorkloadToken: async (input) => {
      const { subject, audience, ttl_seconds, key_thumbprint } = workloadTokenSchema.parse(input);
      return sign('workloads', 'JWT', ttl_seconds, () => ({ sub: subject, aud: audience, ...bound(key_thumbprint) }));
    },
    signOperatorToken: async (input) => {
      const { subject, roles, audience, ttl_seconds } = operatorTokenSchema.parse(input);
      return sign('operators', 'JWT', ttl_seconds, () => ({ sub: subject, roles, aud: audience }));
    },
    signTaskEvent: async (input) => {
      const { audience, ...said } = taskEventSchema.parse(input);
      return sign('orchestrator', 'agent-task-event+jwt', REQUEST_SECONDS, () => ({ aud: audience, ...said }));
    },
    signTaskRequest: async (input) => {
      const wanted = taskRequestSchema.parse(input);
      return sign('orchestrator', 'agent-task+jwt', REQUEST_SECONDS, (iat) => ({
        aud: wanted.audience,
        sub: wanted.subject,
        act: { sub: wanted.workload_subject },
        ...bound(wanted.key_thumbprint),
        delivery_jkt: wanted.delivery_thumbprint,
        task: {
          id: wanted.external_id ?? `dev-${uuidv7(iat * 1000)}`,
          purpose: wanted.purpose,
          phase: wanted.phase,
          not_after: iat + wanted.ttl_seconds,
          max_depth: wanted.max_depth,
        },
        authorization_details: [
          {
            type: 'mayfly',
            entitlements: wanted.entitlements,
            params: wanted.params,
            max_ttl_seconds: wanted.max_ttl_seconds,
          },
        ],
      }));
    },
  };
}

/** RFC 9449 §6.1. */
function bound(jkt: string | undefined): { readonly cnf?: { readonly jkt: string } } {
  return jkt === undefined ? {} : { cnf: { jkt } };
}
