import { lookup } from 'node:dns/promises';
import { abortable } from './abort.ts';
import type { Connection } from './connection.ts';
import { givenUp } from './errors.ts';
import type { ListedStandby } from './schema.ts';

/** Milliseconds for one name: a grant waits to be told what is promised. */
const patience = 2000;

/** Somebody who receives WAL, as the sender sees them (`pg_stat_replication`). */
export interface Replica {
  /** `application_name`. */
  readonly name: string;
  /** Null when it came through a Unix socket. */
  readonly address: string | null;
}

/** Who receives WAL from that server and could serve sessions. @throws ProviderError */
export function readReplicas(connection: Connection, signal: AbortSignal): Promise<readonly Replica[]> {
  const text = 'SELECT name, address FROM mayfly.replicas()';
  return connection.query<{ name: string; address: string | null }>('reading the standbys', text, [], signal);
}

/**
 * Those that no listed standby accounts for. One listed with a name is the one that streams under that
 * `application_name`; one without is known by an address of its host. Each accounts for one: a second server behind the
 * same name is a stranger.
 */
export async function unlisted(
  listed: readonly ListedStandby[],
  replicas: readonly Replica[],
  addressesOf: (host: string) => Promise<readonly string[]> = resolve,
): Promise<readonly Replica[]> {
  const left = [...replicas];
  const account = (matches: (replica: Replica) => boolean): void => {
    const place = left.findIndex(matches);
    if (place >= 0) {
      left.splice(place, 1);
    }
  };
  for (const { name } of listed.filter((standby) => standby.name !== undefined)) {
    account((replica) => replica.name === name);
  }
  // Not asked while nothing is left to account for: a mint waits for this.
  for (const { host } of left.length === 0 ? [] : listed.filter((standby) => standby.name === undefined)) {
    const addresses = await addressesOf(host);
    account(({ address }) => address !== null && addresses.includes(address));
  }
  return left;
}

/** `replica-3@10.0.0.7`. */
export function nameOf({ name, address }: Replica): string {
  return `${name === '' ? '?' : name}@${address ?? 'local'}`;
}

async function resolve(host: string): Promise<readonly string[]> {
  try {
    const asking = lookup(host, { all: true });
    const found = await abortable(
      asking,
      AbortSignal.timeout(patience),
      () => {},
      () => givenUp('resolving a host'),
    );
    return found.map(({ address }) => address);
  } catch {
    // Then it accounts for nobody.
    return [];
  }
}
