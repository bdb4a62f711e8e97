import { type Certificate, keyThumbprintOf, usages } from './certificate.ts';

/** Authorities between a leaf and the anchor, at most. */
const MOST_BETWEEN = 4;

/**
 * Whether a path leads from the certificate to one of the anchors, at that moment (RFC 5280 §6): names and signatures, times, and at
 * each authority that it may issue, may issue at this depth, and that what it issues may be shown by clients. Looks at each
 * certificate once, so that a stranger's tangle of them costs no more than a chain.
 * @param between What the peer sent beside its own certificate; in any order, and of no weight by itself.
 */
export function leadsTo(
  anchors: readonly Certificate[],
  certificate: Certificate,
  between: readonly Certificate[],
  now: Date,
): boolean {
  let reached = [certificate];
  let left = between;
  for (let depth = 0; depth <= MOST_BETWEEN; depth++) {
    const issues = (authority: Certificate): boolean =>
      mayIssue(authority, depth, now) && reached.some((each) => issued(authority, each));
    if (anchors.some(issues)) return true;
    const next = left.filter(issues);
    left = left.filter((authority) => !next.includes(authority));
    reached = next;
  }
  return false;
}

export function isOver({ notAfter }: Certificate, now: Date): boolean {
  // Not the other way round: an end that can not be read has passed.
  return !(now <= notAfter);
}

export function hasBegun({ notBefore }: Certificate, now: Date): boolean {
  return notBefore <= now;
}

/** @param depth How many authorities stand between it and the leaf. */
function mayIssue(authority: Certificate, depth: number, now: Date): boolean {
  const { isAuthority, keyUsage, pathLength, forClients } = authority;
  return (
    isAuthority &&
    keyUsage?.bits.has(usages.keyCertSign) === true &&
    (pathLength === null || depth <= pathLength) &&
    forClients &&
    hasBegun(authority, now) &&
    !isOver(authority, now)
  );
}

function issued(authority: Certificate, certificate: Certificate): boolean {
  try {
    return (
      certificate.x509.checkIssued(authority.x509) &&
      keyThumbprintOf(authority.x509) !== '' &&
      certificate.x509.verify(authority.x509.publicKey)
    );
  } catch {
    // Its key is weak or of a kind that is not used here.
    return false;
  }
}
