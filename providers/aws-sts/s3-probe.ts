import { createHash, createHmac } from 'node:crypto';
import { request as http } from 'node:http';
import { request as https } from 'node:https';
import { text as readText } from 'node:stream/consumers';
import type { AwsKeys } from './clients.ts';
import type { AwsClock } from './clock.ts';
import { AwsError, classify } from './errors.ts';
import type { AwsTarget } from './schema.ts';

const millis = 5_000;

/**
 * Asks S3 for one name in a bucket, signed with Signature Version 4 of the keys: its client would be as large as all else here.
 * @returns Whether it was allowed. @throws AwsError for every other answer.
 */
export async function listBucket(
  config: AwsTarget,
  bucket: string,
  keys: AwsKeys,
  clock: AwsClock,
  signal: AbortSignal,
): Promise<boolean> {
  const suffix = config.region.startsWith('cn-') ? 'amazonaws.com.cn' : 'amazonaws.com';
  const base = config.endpoints.s3 ?? `https://s3.${config.region}.${suffix}`;
  const url = new URL(`${base.replace(/\/$/, '')}/${bucket}?list-type=2&max-keys=1`);
  const headers = signed(url, config.region, keys, new Date(clock.now()));
  const limited = AbortSignal.any([signal, AbortSignal.timeout(millis)]);
  const sent = performance.now();
  let answer: Answer;
  try {
    answer = await get(url, headers, limited);
  } catch (error) {
    throw classify(error, 'probing');
  }
  const { status, date, body } = answer;
  clock.heard(date, sent, performance.now());
  if (status === 200) return true;
  const [, code = 'Unknown'] = /<Code>([A-Za-z0-9]{1,64})<\/Code>/.exec(body) ?? [];
  if (status === 403 && code === 'AccessDenied') return false;
  throw new AwsError('retryable', `probing: S3 answered ${status} (${code})`, {
    ...{ code, refused: status < 500, wholeTarget: false },
  });
}

interface Answer {
  readonly status: number;
  readonly date: string | undefined;
  readonly body: string;
}

/** By a connection of its own: one that is kept would reach the same server again. */
async function get(url: URL, headers: Record<string, string>, signal: AbortSignal): Promise<Answer> {
  const send = url.protocol === 'https:' ? https : http;
  return await new Promise((resolve, reject) => {
    const request = send(url, { headers, signal, agent: false }, (response) => {
      readText(response).then(
        (body) => resolve({ status: response.statusCode ?? 0, date: response.headers.date, body }),
        reject,
      );
    });
    request.on('error', reject);
    request.end();
  });
}

/** RFC-like recipe: "Signature Version 4 signing process", AWS General Reference. */
function signed(url: URL, region: string, keys: AwsKeys, now: Date): Record<string, string> {
  const time = now.toISOString().replace(/[-:]|\.\d+/g, '');
  const scope = `${time.slice(0, 8)}/${region}/s3/aws4_request`;
  const payload = 'UNSIGNED-PAYLOAD';
  const headers = {
    host: url.host,
    'x-amz-content-sha256': payload,
    'x-amz-date': time,
    ...(keys.sessionToken !== undefined && { 'x-amz-security-token': keys.sessionToken }),
  };
  const names = Object.keys(headers).join(';');
  const lines = Object.entries(headers).map(([name, value]) => `${name}:${value}\n`);
  const request = ['GET', url.pathname, url.searchParams.toString(), lines.join(''), names, payload].join('\n');
  const digest = createHash('sha256').update(request).digest('hex');
  const key = [time.slice(0, 8), region, 's3', 'aws4_request'].reduce<Buffer>(
    (before, part) => hmac(before, part),
    Buffer.from(`AWS4${keys.secretAccessKey}`),
  );
  const signature = hmac(key, ['AWS4-HMAC-SHA256', time, scope, digest].join('\n')).toString('hex');
  const { host: _, ...sent } = headers;
  const credential = `Credential=${keys.accessKeyId}/${scope}`;
  return { ...sent, authorization: `AWS4-HMAC-SHA256 ${credential}, SignedHeaders=${names}, Signature=${signature}` };
}

function hmac(key: Buffer, text: string): Buffer {
  return createHmac('sha256', key).update(text).digest();
}
