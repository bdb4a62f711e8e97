import type { webcrypto } from 'node:crypto';
import { compactDecrypt } from 'jose';

/** What a task gives to another workload. Nothing of it may be more than the task has. */
export interface Delegation {
  /** The broker's public URL. */
  readonly broker: string;
  /** Id of the task that delegates. */
  readonly parent: string;
  /** Subject of the workload that is to claim it, and the thumbprint of its key. */
  readonly workload: string;
  readonly keyThumbprint: string;
  readonly purpose: string;
  /** Left out, the child moves with its parent's phases. */
  readonly phase?: string;
  readonly notAfter: Date;
  /** Levels of tasks that may hang below it. Default: 0. */
  readonly maxDepth?: number;
  readonly entitlements: readonly string[];
  readonly params?: Readonly<Record<string, string | number | boolean>>;
  /** Longest life of one grant. */
  readonly maxTtlSeconds?: number;
  /** How long it may be claimed. Default: 120. */
  readonly seconds?: number;
}

const ES256 = { name: 'ECDSA', namedCurve: 'P-256' };
const ECDH = { name: 'ECDH', namedCurve: 'P-256' };

/**
 * A key of the agent's own, by which each of its calls is proven to be its own (RFC 9449), and to which credentials are sealed. The
 * task issuer states its `thumbprint` as `cnf.jkt` of the task request.
 * @example
 * const key = await AgentKey.make();
 * const client = new MayflyClient({ url, token, key });
 */
export class AgentKey {
  /** SHA-256, as RFC 7638 says, in base64url. */
  readonly thumbprint: string;
  readonly #signing: webcrypto.CryptoKey;
  readonly #opening: webcrypto.CryptoKey;
  readonly #public: webcrypto.JsonWebKey;

  private constructor(
    signing: webcrypto.CryptoKey,
    opening: webcrypto.CryptoKey,
    publicJwk: webcrypto.JsonWebKey,
    thumbprint: string,
  ) {
    this.#signing = signing;
    this.#opening = opening;
    this.#public = publicJwk;
    this.thumbprint = thumbprint;
  }

  /** A new P-256 key that nothing can read out of this process by its interface. */
  static async make(): Promise<AgentKey> {
    const { privateKey } = await crypto.subtle.generateKey(ES256, true, ['sign', 'verify']);
    return await AgentKey.from(await crypto.subtle.exportKey('jwk', privateKey));
  }

  /** @param jwk A private P-256 key. @throws Error where it is none. */
  static async from(jwk: webcrypto.JsonWebKey): Promise<AgentKey> {
    const { x = '', y = '', d = '' } = jwk;
    // In the order that RFC 7638 §3 demands.
    const publicJwk = { crv: 'P-256', kty: 'EC', x, y };
    const [signing, opening, thumbprint] = await Promise.all([
      crypto.subtle.importKey('jwk', { ...publicJwk, d }, ES256, false, ['sign']),
      crypto.subtle.importKey('jwk', { ...publicJwk, d }, ECDH, false, ['deriveBits']),
      sha256(JSON.stringify(publicJwk)),
    ]);
    return new AgentKey(signing, opening, publicJwk, thumbprint);
  }

  /** What asks for a credential that is sealed to this key. */
  get delivery(): { readonly jwk: webcrypto.JsonWebKey } {
    return { jwk: this.#public };
  }

  /**
   * Opens what was sealed to this key.
   * @param sealed Compact JWE, `ECDH-ES+A256KW` with `A256GCM`. @throws JOSEError where it is not, or sealed to another key.
   */
  async open(sealed: string): Promise<Readonly<Record<string, unknown>>> {
    const { plaintext } = await compactDecrypt(sealed, this.#opening, {
      keyManagementAlgorithms: ['ECDH-ES+A256KW'],
      contentEncryptionAlgorithms: ['A256GCM'],
    });
    const credential: unknown = JSON.parse(new TextDecoder().decode(plaintext));
    if (typeof credential !== 'object') throw new Error('What was sealed is no credential.');
    return { ...credential };
  }

  /**
   * A proof for one call, of use once and within a minute.
   * @param url Of the call; its query counts for nothing. @param token What comes in `Authorization`; undefined where nothing does.
   * @param nonce What the broker last gave in `DPoP-Nonce`, if it ever did (§8).
   */
  async prove(method: string, url: string, token: string | undefined, nonce?: string): Promise<string> {
    return await this.#sign('dpop+jwt', {
      htm: method,
      htu: url.replace(/[?#].*$/, ''),
      ...(token === undefined ? {} : { ath: await sha256(token) }),
      ...(nonce === undefined ? {} : { nonce }),
    });
  }

  /** The word by which a task of this key offers a part of itself, to be claimed within `offer.seconds` (at most 300). */
  async delegate(offer: Delegation): Promise<string> {
    const { broker, parent, workload, keyThumbprint, purpose, phase, notAfter, maxDepth = 0 } = offer;
    const { entitlements, params, maxTtlSeconds, seconds = 120 } = offer;
    return await this.#sign('agent-delegation+jwt', {
      iss: parent,
      aud: broker,
      exp: Math.floor(Date.now() / 1000) + seconds,
      act: { sub: workload },
      cnf: { jkt: keyThumbprint },
      task: { purpose, phase, not_after: Math.floor(notAfter.getTime() / 1000), max_depth: maxDepth },
      authorization_details: [{ type: 'mayfly', entitlements, params, max_ttl_seconds: maxTtlSeconds }],
    });
  }

  async #sign(typ: string, more: Readonly<Record<string, unknown>>): Promise<string> {
    const header = { typ, alg: 'ES256', jwk: this.#public };
    const claims = { jti: crypto.randomUUID(), iat: Math.floor(Date.now() / 1000), ...more };
    const input = `${base64url(utf8(JSON.stringify(header)))}.${base64url(utf8(JSON.stringify(claims)))}`;
    const signature = await crypto.subtle.sign({ name: 'ECDSA', hash: 'SHA-256' }, this.#signing, utf8(input));
    return `${input}.${base64url(new Uint8Array(signature))}`;
  }
}

async function sha256(text: string): Promise<string> {
  return base64url(new Uint8Array(await crypto.subtle.digest('SHA-256', utf8(text))));
}

function utf8(text: string): Uint8Array<ArrayBuffer> {
  return new TextEncoder().encode(text);
}

function base64url(bytes: Uint8Array): string {
  return btoa(String.fromCharCode(...bytes))
    .replace(/\+/g, '-')
    .replace(/\//g, '_')
    .replace(/=+$/, '');
}
