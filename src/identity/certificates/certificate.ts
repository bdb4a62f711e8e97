import { hash, X509Certificate } from 'node:crypto';
import { vetPublicKey } from '../vet-keys.ts';
import { contentOf, type DerValue, readDer, readInside, tags } from './der.ts';

/** Bits of the key usage (RFC 5280 §4.2.1.3), the first as 0. */
export const usages = { digitalSignature: 0, keyCertSign: 5, cRLSign: 6 } as const;

/** An X.509 certificate, with what node:crypto does not tell of one. */
export interface Certificate {
  readonly x509: X509Certificate;
  /** The usage of its key, null where it says nothing of it. */
  readonly keyUsage: { readonly critical: boolean; readonly bits: ReadonlySet<number> } | null;
  readonly isAuthority: boolean;
  /** How many authorities may stand between it and a leaf; null: any number. */
  readonly pathLength: number | null;
  /** Every URI of its subject alternative names. */
  readonly uris: readonly string[];
  /** Whether clients may show it, or what it issues: it names that purpose, or none at all. */
  readonly forClients: boolean;
  readonly notBefore: Date;
  readonly notAfter: Date;
}

/** Object identifiers by their DER, in hex. */
const oids = {
  keyUsage: '551d0f',
  subjectAltName: '551d11',
  basicConstraints: '551d13',
  nameConstraints: '551d1e',
  extendedKeyUsage: '551d25',
  clientAuth: '2b06010505070302',
  anyPurpose: '551d2500',
} as const;
const understood: readonly string[] = [
  oids.keyUsage,
  oids.subjectAltName,
  oids.basicConstraints,
  oids.extendedKeyUsage,
];

/** ECDSA and RSA PKCS #1 with SHA-256, SHA-384 or SHA-512, and Ed25519. */
const signatures = /^(?:2a8648ce3d04030[234]|2a864886f70d01010[bcd]|2b6570)$/;

/** A URI among GeneralNames: context tag 6. */
const URI = 0x86;
/** The extensions of a TBSCertificate: context tag 3, constructed. */
const EXTENSIONS = 0xa3;

/** Whatever is proven with it, its key must be one that we would believe. */
const KEY_ALGORITHMS = ['ES256', 'ES384', 'ES512', 'PS256', 'EdDSA'];

/**
 * Reads a certificate for use in a path. What it says that is not understood here, and must be, makes it unfit; so do name constraints,
 * which are not evaluated.
 * @throws Error that says what is wrong with it.
 */
export function readCertificate(raw: Buffer): Certificate {
  const x509 = new X509Certificate(raw);
  // What OpenSSL read, and no more: bytes after it are not the certificate's.
  const [whole] = readDer(x509.raw);
  const [body, algorithm] = readInside(whole, tags.sequence);
  const [oid] = readInside(algorithm, tags.sequence);
  if (!signatures.test(contentOf(oid, tags.oid).toString('hex')))
    throw new Error('is signed by an algorithm that is not taken');
  const extensions = readExtensions(readInside(body, tags.sequence).find(({ tag }) => tag === EXTENSIONS));
  const constraints = extensions.get(oids.basicConstraints);
  const purposes = extensions.get(oids.extendedKeyUsage);
  return {
    x509,
    keyUsage: readKeyUsage(extensions.get(oids.keyUsage)),
    ...readConstraints(constraints === undefined ? [] : readOnly(constraints.value)),
    uris: readUris(extensions.get(oids.subjectAltName)),
    forClients: purposes === undefined || namesClients(readOnly(purposes.value)),
    notBefore: new Date(x509.validFrom),
    notAfter: new Date(x509.validTo),
  };
}

/** RFC 8705 §3.1, `x5t#S256`. */
export function thumbprintOf({ raw }: X509Certificate): string {
  return hash('sha256', raw, 'base64url');
}

/** RFC 7638 thumbprint of its public key. @throws Error for a key that is too weak, or of a kind that is not used here. */
export function keyThumbprintOf({ publicKey }: X509Certificate): string {
  return vetPublicKey({ ...publicKey.export({ format: 'jwk' }) }, KEY_ALGORITHMS).thumbprint;
}

interface Extension {
  readonly critical: boolean;
  readonly value: Buffer;
}

function readExtensions(wrapped: DerValue | undefined): ReadonlyMap<string, Extension> {
  const extensions = new Map<string, Extension>();
  if (wrapped === undefined) return extensions;
  const [list] = readDer(wrapped.bytes);
  for (const entry of readInside(list, tags.sequence)) {
    const [oid, second, third] = readInside(entry, tags.sequence);
    const name = contentOf(oid, tags.oid).toString('hex');
    // DER leaves FALSE, the default, out.
    const critical = second?.tag === tags.boolean;
    if (critical && second.bytes.toString('hex') !== 'ff') throw new Error('says no proper yes');
    if (extensions.has(name)) throw new Error('has an extension twice');
    if (name === oids.nameConstraints) throw new Error('has name constraints, which are not evaluated here');
    if (critical && !understood.includes(name)) throw new Error('has a critical extension that is not understood here');
    extensions.set(name, { critical, value: contentOf(critical ? third : second, tags.octets) });
  }
  return extensions;
}

/** The values of the one sequence that an extension is. */
function readOnly(value: Buffer): readonly DerValue[] {
  const [only, more] = readDer(value);
  if (more !== undefined) throw new Error('has an extension with something after it');
  return readInside(only, tags.sequence);
}

function readKeyUsage(extension: Extension | undefined): Certificate['keyUsage'] {
  if (extension === undefined) return null;
  const [only, more] = readDer(extension.value);
  const [unused, ...bytes] = contentOf(only, tags.bits);
  if (unused === undefined || more !== undefined) throw new Error('has no proper key usage');
  const bits = bytes.flatMap((byte, index) =>
    [0, 1, 2, 3, 4, 5, 6, 7].filter((bit) => (byte & (0x80 >> bit)) !== 0).map((bit) => index * 8 + bit),
  );
  return { critical: extension.critical, bits: new Set(bits) };
}

function readConstraints(values: readonly DerValue[]): Pick<Certificate, 'isAuthority' | 'pathLength'> {
  const [first, second] = values;
  const said = first?.tag === tags.boolean ? first.bytes.toString('hex') : '00';
  // Anything but 00 is yes to other readers: it must not be no here alone.
  if (said !== '00' && said !== 'ff') throw new Error('says no proper yes');
  const isAuthority = said === 'ff';
  const length = first?.tag === tags.integer ? first : second;
  if (length === undefined) return { isAuthority, pathLength: null };
  const bytes = contentOf(length, tags.integer);
  // Longer ones bound nothing that could ever be.
  if (bytes.length !== 1 || bytes.readInt8() < 0) throw new Error('has an absurd path length');
  return { isAuthority, pathLength: bytes.readInt8() };
}

function readUris(extension: Extension | undefined): readonly string[] {
  const names = extension === undefined ? [] : readOnly(extension.value);
  return names.filter(({ tag }) => tag === URI).map(({ bytes }) => bytes.toString('latin1'));
}

function namesClients(values: readonly DerValue[]): boolean {
  const purposes = values.map((value) => contentOf(value, tags.oid).toString('hex'));
  return purposes.includes(oids.clientAuth) || purposes.includes(oids.anyPurpose);
}
