import type { X509Certificate } from 'node:crypto';
import type { IncomingMessage } from 'node:http';
import { TLSSocket } from 'node:tls';

/** Longer chains are cut: no path of ours needs them. */
const MOST = 6;

/** Read once: node:tls takes the issuers out of the connection as it tells them. */
const known = new WeakMap<TLSSocket, readonly X509Certificate[]>();

/**
 * The certificates by which the other end of this connection proved itself, its own first; none where it is not TLS of ours, or it
 * showed none. Not yet judged. What a proxy says in headers is not looked at.
 */
export function certificatesOf({ socket }: Pick<IncomingMessage, 'socket'>): readonly X509Certificate[] {
  if (!(socket instanceof TLSSocket)) return [];
  const shown = known.get(socket) ?? readShown(socket);
  known.set(socket, shown);
  return shown;
}

function readShown(socket: TLSSocket): readonly X509Certificate[] {
  const shown: X509Certificate[] = [];
  let next = socket.getPeerX509Certificate();
  for (; next !== undefined && shown.length < MOST; next = next.issuerCertificate) shown.push(next);
  return shown;
}
