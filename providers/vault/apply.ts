import { readFileSync } from 'node:fs';
import { z } from 'zod';
import { type PreparedBy, ProviderError, type Secret, within } from '../../src/provider.ts';
import { Node } from './client.ts';
import { refusal, saidBy } from './errors.ts';
import { isLoopback, type VaultTarget } from './schema.ts';
import type { Received } from './transport.ts';
import { type Entitlements, writes } from './writes.ts';

const applyMillis = 30_000;
const upgradeMillis = 200;

const holderSchema = z.object({
  data: z.object({
    data: z.object({ installation: z.string(), epoch: z.int(), store: z.string().nullable() }),
    metadata: z.object({ version: z.int() }),
  }),
});

/** Undefined where there is no record yet. @throws ProviderError for one that is not ours. */
function heldIn(
  read: Received,
): (z.infer<typeof holderSchema>['data']['data'] & { readonly version: number }) | undefined {
  if (read.status === 404) return undefined;
  const parsed = holderSchema.safeParse(read.body);
  if (!parsed.success) throw new ProviderError('misconfigured', 'preparing: what stands at the record is not a record');
  return { ...parsed.data.data.data, version: parsed.data.data.metadata.version };
}

/** A mount of versioned values that was just made takes none at once. */
async function ready(ask: () => Promise<Received>, signal: AbortSignal): Promise<Received> {
  for (;;) {
    const received = await ask();
    if (received.status !== 400 || !/upgrading/.test(saidBy(received)) || signal.aborted) return received;
    await new Promise((resolve) => setTimeout(resolve, upgradeMillis));
  }
}

/**
 * Where an administrator's token may go: over TLS, or nowhere but this machine.
 * @throws ProviderError `misconfigured`
 */
function adminOf(adminUrl: Secret<string>): {
  readonly origin: string;
  readonly token: string;
  readonly ca: string | null;
} {
  const text = adminUrl.reveal().trim();
  const given = URL.canParse(text) ? new URL(text) : undefined;
  if (given === undefined || given.password === '' || !/^https?:$/.test(given.protocol))
    throw new ProviderError(
      'misconfigured',
      'the admin URL must be https://:TOKEN@host:port, with ?ca=FILE for certificates of your own',
    );
  if (given.protocol === 'http:' && !isLoopback(given.hostname))
    throw new ProviderError('misconfigured', 'the admin URL must be https: the token would be sent in clear');
  return {
    ...{ origin: given.origin, token: decodeURIComponent(given.password) },
    ca: given.searchParams.get('ca'),
  };
}

function certificates(file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch {
    throw new ProviderError('misconfigured', `the certificates ${file} can not be read`);
  }
}

/** @param adminUrl With an administrator's token as its password: `https://:TOKEN@host:8200`, and `?ca=FILE` where it needs one. */
export async function apply(
  adminUrl: Secret<string>,
  target: VaultTarget,
  entitlements: Entitlements,
  installation: string,
  _secret: Secret<string>,
  by?: PreparedBy,
): Promise<void> {
  const { origin, token, ca } = adminOf(adminUrl);
  const trusted = ca === null ? undefined : certificates(ca);
  const options = { namespace: target.namespace, ca: () => trusted, connectMillis: 5000, totalMillis: 10_000 };
  const node = new Node(origin, options);
  const signal = within(applyMillis);
  const ask = async (method: 'GET' | 'POST', path: string, data?: Readonly<Record<string, unknown>>) =>
    await node.ask({ method, path, token, signal, ...(data === undefined ? {} : { data }) });
  try {
    for (const { path, data, unless } of writes(target, entitlements)) {
      if (unless !== undefined && (await ask('GET', unless)).status === 200) continue;
      const received = await ask('POST', path, data);
      if (received.status !== 200 && received.status !== 204) throw refusal(received, `preparing: writing ${path}`);
    }
    if (target.record === 'none') return;
    const path = `${target.record.mount}/data/holder`;
    const read = await ready(() => ask('GET', path), signal);
    if (read.status !== 200 && read.status !== 404) throw refusal(read, `preparing: reading ${path}`);
    const held = heldIn(read);
    if (by?.tenure === undefined && held !== undefined) {
      if (held.installation !== installation || (by !== undefined && held.store !== null && held.store !== by.store))
        throw new ProviderError(
          'misconfigured',
          `preparing: another holds the target (${held.installation}): mayfly target adopt`,
        );
      return;
    }
    const record = {
      installation,
      epoch: (held?.epoch ?? 0) + 1,
      store: by?.store ?? null,
      tenure: by?.tenure ?? null,
      beat: 0,
    };
    // Another may have begun, or beaten, one meanwhile.
    const guard = { cas: held?.version ?? 0 };
    const written = await ready(() => ask('POST', path, { options: guard, data: record }), signal);
    if (written.status !== 200) throw refusal(written, `preparing: writing ${path}`);
  } finally {
    node.close();
  }
}
