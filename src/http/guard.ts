import { randomUUID } from 'node:crypto';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { isIP } from 'node:net';
import { type Config, isLoopback } from '../config.ts';
import { addressMatcher } from '../domain/cidr.ts';
import { MayflyError } from '../domain/errors.ts';
import { openNotes } from './notes.ts';
import { oneHeader } from './parse.ts';

/** Asked by the machine's own keepers, who come straight to the pod by its address. They say nothing secret. */
const probes = new Set(['/healthz', '/readyz', '/metrics']);

/** The request's id: the caller's own if it is fit for logs and evidence, else a new one. Stands in the answer too. */
export function nameRequest(request: IncomingMessage, response: ServerResponse): void {
  const given = request.headers['x-request-id'];
  const id = typeof given === 'string' && /^[A-Za-z0-9._-]{1,64}$/.test(given) ? given : randomUUID();
  openNotes(response, id);
  const echoed = request.url?.startsWith('/access/v1/') === true && isPrintable(given);
  response.setHeader('X-Request-Id', echoed ? given : id);
}

/** AuthZEN 1.0 wants it back as it came, whatever our own name for the request is. */
function isPrintable(given: unknown): given is string {
  return typeof given === 'string' && /^[\x21-\x7e]{1,200}$/.test(given);
}

export interface Guard {
  /** @throws MayflyError `host_refused`, `peer_refused` */
  check(request: IncomingMessage): void;
  /** The caller's address, for the log. What a proxy says of it decides nothing. */
  clientOf(request: IncomingMessage): string;
}

/** Who may talk to us, and by which name. */
export function createGuard(config: Pick<Config, 'public_url' | 'trusted_proxies'>): Guard {
  const isOurName = hostMatcher(config.public_url);
  const isProxy = config.trusted_proxies === undefined ? undefined : addressMatcher(config.trusted_proxies);
  return {
    check: (request) => {
      const target = request.url ?? '';
      // An absolute target names a host of its own, which would count instead of the header (RFC 9112 §3.2.2).
      if (!target.startsWith('/')) throw new MayflyError('host_refused');
      const probe = probes.has(target);
      const host = oneHeader(request, 'host') ?? '';
      // A page in a browser that points its own name at us (DNS rebinding) comes with that name, never with an address.
      if (!isOurName(host) && !(probe && isAddress(host))) throw new MayflyError('host_refused');
      if (!probe && isProxy?.(request.socket.remoteAddress ?? '') === false) throw new MayflyError('peer_refused');
    },
    clientOf: (request) => clientOf(request, isProxy),
  };
}

/** Our public name; where that is loopback, any name of it, since the port may be forwarded. */
function hostMatcher(publicUrl: string): (host: string) => boolean {
  const url = new URL(publicUrl);
  if (isLoopback(url.hostname)) return (host) => isLoopback(nameOf(host) ?? '');
  const port = url.port || (url.protocol === 'https:' ? '443' : '80');
  const names = new Set([url.host, `${url.hostname}:${port}`]);
  return (host) => names.has(host.toLowerCase());
}

function isAddress(host: string): boolean {
  return isIP((nameOf(host) ?? '').replace(/^\[|\]$/g, '')) !== 0;
}

/** The host without its port. */
function nameOf(host: string): string | undefined {
  return /^(\[[0-9a-f:.]+\]|[^:[\]]+)(?::\d{1,5})?$/i.exec(host)?.[1]?.toLowerCase();
}

/** The nearest address that is not a proxy of ours, as the proxies told it. */
function clientOf(request: IncomingMessage, isProxy: ((address: string) => boolean) | undefined): string {
  const peer = request.socket.remoteAddress ?? '';
  if (isProxy?.(peer) !== true) return peer;
  const hops = (request.headersDistinct['x-forwarded-for'] ?? [])
    .join(',')
    .split(',')
    .map((hop) => hop.trim());
  const nearest = hops.reverse().find((hop) => isIP(hop) === 0 || !isProxy(hop));
  return nearest !== undefined && isIP(nearest) !== 0 ? nearest : peer;
}
