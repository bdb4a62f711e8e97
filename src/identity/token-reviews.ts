import type { IncomingMessage } from 'node:http';
import { request } from 'node:https';
import { z } from 'zod';
import type { TokenReview } from '../catalog/types.ts';
import { MayflyError } from '../domain/errors.ts';
import type { Secret } from '../domain/secret.ts';
import { within } from '../domain/within.ts';
import type { TokenReviews } from './sources/source.ts';

/** Kubernetes' own tokens are some 2 KiB, and come back in the answer. */
const MAX_ANSWER_BYTES = 64 * 1024;
const RETRY_AFTER_SECONDS = 2;

/** Reads the text behind a workload source's `file:` reference. */
export type ReadSecret = (source: string, reference: string) => Secret<string>;

export interface TokenReviewFailed {
  readonly event: 'token_review_failed';
  readonly source: string;
  readonly reason: string;
}

export interface TokenReviewsOptions {
  /** Without it no cluster can be asked. */
  readonly secret: ReadSecret | undefined;
  readonly log: (event: TokenReviewFailed) => void;
  /** For one whole exchange with a cluster. */
  readonly timeoutMs: number;
}

const answerSchema = z.object({
  status: z.object({
    authenticated: z.boolean().default(false),
    audiences: z.array(z.string()).default([]),
    // Empty for a token that does not hold.
    user: z.object({ username: z.string().optional() }).optional(),
  }),
});

/**
 * Asks a cluster by `authentication.k8s.io/v1` TokenReview whether a token still holds: only the API server knows that a
 * pod or service account is deleted. Over HTTPS, to the cluster's own certificate authority and nobody else's; redirects
 * are not followed. Positive answers live as long as the cache of verified tokens, and no negative one is kept.
 */
export function createTokenReviews(options: TokenReviewsOptions): TokenReviews & { close(): void } {
  const closing = new AbortController();

  const ask = async (source: string, review: TokenReview, body: string) => {
    const answer = await post(review, body, options, source, within(options.timeoutMs, closing.signal));
    return answerSchema.parse(JSON.parse(answer)).status;
  };

  return {
    async confirm(source, token, subject, { audience }) {
      if (source.tokenReview === undefined) return;
      const spec = { token, audiences: [audience] };
      const body = JSON.stringify({ apiVersion: 'authentication.k8s.io/v1', kind: 'TokenReview', spec });
      const status = await ask(source.name, source.tokenReview, body).catch((error: unknown) => {
        options.log({ event: 'token_review_failed', source: source.name, reason: describe(error) });
        throw new MayflyError('keys_unavailable', 'The cluster can not be asked whether this token still holds.', {
          retryAfterSeconds: RETRY_AFTER_SECONDS,
        });
      });
      // A server that knows no audiences answers without ours: then it has not looked at it.
      if (!status.authenticated || !status.audiences.includes(audience) || status.user?.username !== subject) {
        throw new MayflyError('workload_token_invalid', 'The cluster says that this token does not hold any more.');
      }
    },
    close: () => closing.abort(new Error('the broker is closing')),
  };
}

async function post(
  review: TokenReview,
  body: string,
  { secret }: TokenReviewsOptions,
  source: string,
  signal: AbortSignal,
): Promise<string> {
  if (secret === undefined) throw new Error('no secrets can be read here');
  const credential = secret(source, review.credential);
  const ca = secret(source, review.ca);
  const response = await new Promise<IncomingMessage>((resolve, reject) => {
    const headers = { 'content-type': 'application/json', authorization: `Bearer ${credential.reveal()}` };
    const url = new URL('/apis/authentication.k8s.io/v1/tokenreviews', review.url);
    // No agent: a kept connection would outlive the certificate authority that it was checked against.
    request(url, { method: 'POST', headers, ca: ca.reveal(), signal, agent: false }, resolve)
      .on('error', reject)
      .end(body);
  });
  const chunks: Buffer[] = [];
  let bytes = 0;
  const parts: AsyncIterable<Buffer> = response;
  for await (const part of parts) {
    chunks.push(part);
    bytes += part.length;
    // Leaving the loop by throwing destroys the response and its socket.
    if (bytes > MAX_ANSWER_BYTES) throw new Error(`answered more than ${MAX_ANSWER_BYTES} bytes`);
  }
  if (response.statusCode !== 201 && response.statusCode !== 200) throw new Error(`answered ${response.statusCode}`);
  return Buffer.concat(chunks).toString('utf8');
}

/** Parsing errors quote the answer, which holds the token. */
function describe(error: unknown): string {
  if (error instanceof SyntaxError || error instanceof z.ZodError) return 'answered no TokenReview';
  return error instanceof Error ? error.message : 'unknown';
}
