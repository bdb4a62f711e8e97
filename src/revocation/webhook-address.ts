import { lookup as resolveName } from 'node:dns';
import { isIP, type LookupFunction } from 'node:net';
import { addressMatcher } from '../domain/cidr.ts';

/** Machines themselves, and what answers only to them: metadata of clouds, link-local services; no host at all. */
const NEVER = addressMatcher([
  ...['0.0.0.0/8', '127.0.0.0/8', '169.254.0.0/16', '100.100.100.200/32', '192.0.0.192/32', '224.0.0.0/3'],
  ...['::/127', 'fe80::/10', 'ff00::/8', 'fd00:ec2::/32', 'fd20:ce::254/128'],
  // These carry addresses of IPv4 in them: NAT64 and 6to4.
  ...['64:ff9b::/96', '64:ff9b:1::/48', '2002::/16'],
]);
const LOOPBACK = addressMatcher(['127.0.0.0/8', '::1/128']);

export type MayReach = (address: string) => boolean;

/** @param declared CIDR blocks, if the webhook names any: then these alone. @param dev On loopback, too. */
export function reachable(declared: readonly string[] | null, dev: boolean): MayReach {
  if (declared !== null) return addressMatcher(declared);
  return (address) => isIP(address) !== 0 && (!NEVER(address) || (dev && LOOPBACK(address)));
}

/** What a host name leads to is refused by this name of the error. */
export const REFUSED_ADDRESS = 'EADDRESSREFUSED';

/** Of `node:http`: what was looked at is what is connected to, whatever the name leads to a moment later. */
export function pinnedLookup(mayReach: MayReach): LookupFunction {
  return (hostname, options, callback) => {
    resolveName(hostname, { ...options, all: true }, (error, found) => {
      if (error !== null) return callback(error, []);
      const allowed = found.filter(({ address }) => mayReach(address));
      const [first] = allowed;
      if (first === undefined) return callback(Object.assign(new Error('refused'), { code: REFUSED_ADDRESS }), []);
      if (options.all === true) return callback(null, allowed);
      callback(null, first.address, first.family);
    });
  };
}
