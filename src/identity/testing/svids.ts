import { generateKeyPairSync, type KeyObject, randomBytes, sign, X509Certificate } from 'node:crypto';
import { NOW } from './trust.ts';

/** A certificate with its key, for who issues by it or shows it. */
export interface TestCertificate {
  readonly x509: X509Certificate;
  readonly privateKey: KeyObject;
  /** PEM. */
  readonly cert: string;
  readonly key: string;
  /** As a bundle has it. */
  readonly entry: Readonly<Record<string, unknown>>;
}

/** What is written, down to the wire. What is not said is that of a proper leaf, or with `authority` of a proper root. */
export interface CertificateDraft {
  /** Null: none at all. */
  readonly name?: string | null;
  readonly uris?: readonly string[];
  readonly dns?: readonly string[];
  readonly authority?: boolean;
  readonly pathLength?: number | undefined;
  /** The value of the basic constraints, instead of what follows from these two. */
  readonly constraints?: Buffer;
  /** By their bits; null: the extension is absent. */
  readonly usages?: readonly number[] | null;
  readonly usageCritical?: boolean;
  /** Dotted. Null: the extension is absent. */
  readonly purposes?: readonly string[] | null;
  /** More extensions, whole. */
  readonly more?: readonly Buffer[];
  readonly notBefore?: Date;
  readonly notAfter?: Date;
  readonly keys?: { readonly publicKey: KeyObject; readonly privateKey: KeyObject };
  readonly digest?: 'sha256' | 'sha1';
}

export const SERVER = '1.3.6.1.5.5.7.3.1';
export const CLIENT = '1.3.6.1.5.5.7.3.2';
export const AGENT_ID = 'spiffe://prod.example/agents/recon';

export const p256 = () => generateKeyPairSync('ec', { namedCurve: 'P-256' });

/** An authority that signs itself, valid for a day around the time of the tests. */
export function makeAuthority(draft: CertificateDraft = {}): TestCertificate {
  return issueBy(null, { name: 'root', authority: true, ...draft });
}

/** A certificate by that authority: an X.509-SVID of the agent, but for what is said. */
export function issue(by: TestCertificate, draft: CertificateDraft = {}): TestCertificate {
  return issueBy(by, draft);
}

function issueBy(by: TestCertificate | null, draft: CertificateDraft): TestCertificate {
  const { authority = false, digest = 'sha256', keys = p256() } = draft;
  const name = draft.name === undefined ? 'agent' : draft.name;
  const from = draft.notBefore ?? new Date(NOW.getTime() - 12 * 3600_000);
  const until = draft.notAfter ?? new Date(NOW.getTime() + 12 * 3600_000);
  const signer = by?.privateKey ?? keys.privateKey;
  const algorithm = sequence(oid(ALGORITHMS[`${signer.asymmetricKeyType}-${digest}`] ?? ''));
  const subject = nameOf(name);
  const body = sequence(
    der(0xa0, integer(2)),
    der(0x02, Buffer.concat([Buffer.of(1), randomBytes(8)])),
    algorithm,
    by === null ? subject : subjectOf(by.x509),
    sequence(time(from), time(until)),
    subject,
    keys.publicKey.export({ type: 'spki', format: 'der' }),
    der(0xa3, sequence(...extensionsOf(draft, authority))),
  );
  const signature = sign(signer.asymmetricKeyType === 'ed25519' ? null : digest, body, signer);
  const raw = sequence(body, algorithm, der(0x03, Buffer.of(0), signature));
  const x509 = new X509Certificate(raw);
  const { kty, crv, x, y } = keys.publicKey.export({ format: 'jwk' });
  return {
    x509,
    privateKey: keys.privateKey,
    cert: x509.toString(),
    key: String(keys.privateKey.export({ type: 'pkcs8', format: 'pem' })),
    entry: { use: 'x509-svid', kty, crv, x, y, x5c: [raw.toString('base64')] },
  };
}

const ALGORITHMS: Readonly<Record<string, string>> = {
  'ec-sha256': '1.2.840.10045.4.3.2',
  'ec-sha1': '1.2.840.10045.4.1',
  'rsa-sha256': '1.2.840.113549.1.1.11',
  'ed25519-sha256': '1.3.101.112',
};

function extensionsOf(draft: CertificateDraft, authority: boolean): Buffer[] {
  const { uris = authority ? [] : [AGENT_ID], dns = [], usageCritical = true, more = [], pathLength } = draft;
  const usages = draft.usages === undefined ? (authority ? [5, 6] : [0]) : draft.usages;
  const purposes = draft.purposes === undefined ? (authority ? null : [SERVER, CLIENT]) : draft.purposes;
  const {
    constraints = sequence(
      ...(authority ? [der(0x01, Buffer.of(0xff))] : []),
      ...(pathLength === undefined ? [] : [integer(pathLength)]),
    ),
  } = draft;
  const names = [
    ...uris.map((uri) => der(0x86, Buffer.from(uri, 'latin1'))),
    ...dns.map((host) => der(0x82, Buffer.from(host, 'latin1'))),
  ];
  return [
    extension('2.5.29.19', true, constraints),
    ...(usages === null ? [] : [extension('2.5.29.15', usageCritical, bits(usages))]),
    ...(purposes === null ? [] : [extension('2.5.29.37', false, sequence(...purposes.map(oid)))]),
    ...(names.length === 0 ? [] : [extension('2.5.29.17', false, sequence(...names))]),
    ...more,
  ];
}

export function extension(name: string, critical: boolean, value: Buffer): Buffer {
  return sequence(oid(name), ...(critical ? [der(0x01, Buffer.of(0xff))] : []), der(0x04, value));
}

export function der(tag: number, ...parts: readonly Buffer[]): Buffer {
  const content = Buffer.concat(parts);
  const { length } = content;
  const head = length < 0x80 ? [length] : length < 0x100 ? [0x81, length] : [0x82, length >> 8, length & 0xff];
  return Buffer.concat([Buffer.of(tag, ...head), content]);
}

export const sequence = (...parts: readonly Buffer[]): Buffer => der(0x30, ...parts);
const integer = (value: number): Buffer => der(0x02, Buffer.of(value));

export function oid(dotted: string): Buffer {
  const [first = 0, second = 0, ...rest] = dotted.split('.').map(Number);
  const bytes = [first * 40 + second, ...rest].flatMap((part) => {
    const digits = [part & 0x7f];
    for (let left = part >> 7; left > 0; left >>= 7) digits.unshift((left & 0x7f) | 0x80);
    return digits;
  });
  return der(0x06, Buffer.from(bytes));
}

function bits(set: readonly number[]): Buffer {
  const byte = set.reduce((all, bit) => all | (0x80 >> bit), 0);
  const unused = set.length === 0 ? 0 : 7 - Math.max(...set);
  return der(0x03, Buffer.of(unused), Buffer.of(byte));
}

function nameOf(name: string | null): Buffer {
  return name === null
    ? sequence()
    : sequence(der(0x31, sequence(oid('2.5.4.3'), der(0x0c, Buffer.from(name, 'utf8')))));
}

/** All names of the tests are common names. */
function subjectOf({ subject }: X509Certificate): Buffer {
  return nameOf(subject?.replace(/^CN=/, '') ?? null);
}

/** UTCTime, as RFC 5280 §4.1.2.5 demands it until 2049. */
function time(moment: Date): Buffer {
  const text = moment.toISOString().replace(/^\d\d|[-:T]|\.\d+/g, '');
  return der(0x17, Buffer.from(text, 'latin1'));
}
