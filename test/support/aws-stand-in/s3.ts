import { mayDo } from './evaluate.ts';
import { denied, Refusal } from './refusal.ts';
import type { Principal, State } from './state.ts';

/** Which action of S3 a request in path style means. */
export function actionOf(url: URL): string {
  return partsOf(url).key === '' ? 'ListBucket' : 'GetObject';
}

/** GET and HEAD of a bucket or an object. Answers the body. */
export async function answerS3(state: State, caller: Principal, url: URL): Promise<string> {
  const { bucket, key } = partsOf(url);
  const action = `s3:${actionOf(url)}`;
  const arn = `arn:aws:s3:::${bucket}${key === '' ? '' : `/${key}`}`;
  if (!(await mayDo(state, caller, action, arn))) throw denied(action);
  const objects = state.buckets.get(bucket);
  if (objects === undefined) throw new Refusal(404, 'NoSuchBucket', 'The specified bucket does not exist');
  if (key !== '' && !objects.has(key)) throw new Refusal(404, 'NoSuchKey', 'The specified key does not exist.');
  return key === '' ? '<ListBucketResult/>' : key;
}

function partsOf(url: URL): { readonly bucket: string; readonly key: string } {
  const [, bucket = '', ...rest] = decodeURIComponent(url.pathname).split('/');
  return { bucket, key: rest.join('/') };
}
