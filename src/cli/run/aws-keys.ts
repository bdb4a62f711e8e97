import { z } from 'zod';
import type { Credential } from '../../client/index.ts';

const awsCredential = z.looseObject({
  access_key_id: z.string().min(1),
  secret_access_key: z.string().min(1),
  session_token: z.string().min(1),
  region: z.string().min(1).optional(),
  /** When the target itself stops accepting it. */
  expires_at: z.iso.datetime(),
});

/** Keys of one session of AWS. */
export interface AwsKeys {
  readonly accessKeyId: string;
  readonly secretAccessKey: string;
  readonly sessionToken: string;
  readonly region: string | undefined;
  /** From then on they are without effect, by the broker's clock: milliseconds since 1970. */
  readonly endsAt: number;
}

/** The keys that stand in an answer; undefined where they are of another kind. Its grant ends them, if they do not end by themselves before. */
export function readAwsKeys(answer: {
  readonly grant: { readonly deadline: string };
  readonly credential?: Credential;
}): AwsKeys | undefined {
  const { success, data } = awsCredential.safeParse(answer.credential);
  if (!success) return undefined;
  return {
    accessKeyId: data.access_key_id,
    secretAccessKey: data.secret_access_key,
    sessionToken: data.session_token,
    region: data.region,
    endsAt: Math.min(Date.parse(data.expires_at), Date.parse(answer.grant.deadline)),
  };
}

/** In whole seconds, as AWS itself writes it, and never later than it is. */
export function expirationOf({ endsAt }: AwsKeys): string {
  return new Date(endsAt).toISOString().replace(/\.\d+Z$/, 'Z');
}
