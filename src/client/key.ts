import type { webcrypto } from 'node:crypto';

const ES256 = { name: 'ECDSA', namedCurve: 'P-256' };

/**
 * A key of the agent's own, by which each of its calls is proven to be its own (RFC 9449). The task issuer states its `thumbprint` as
 * `cnf.jkt` of the task request.
 * @example
 * const key = await AgentKey.make();
 * const client = new MayflyClient({ url, token, key });
 */
export class AgentKey {
  /** SHA-256, as RFC 7638 says, in base64url. */
  readonly thumbprint: string;
  readonly #private: webcrypto.CryptoKey;
  readonly #public: webcrypto.JsonWebKey;

  private constructor(privateKey: webcrypto.CryptoKey, publicJwk: webcrypto.JsonWebKey, thumbprint: string) {
    this.#private = privateKey;
    this.#public = publicJwk;
    this.thumbprint = thumbprint;
  }

  /** A new P-256 key that nothing can read out of this process by its interface. */
  static async make(): Promise<AgentKey> {
    const { privateKey, publicKey } = await crypto.subtle.generateKey(ES256, false, ['sign']);
    return await AgentKey.#of(privateKey, await crypto.subtle.exportKey('jwk', publicKey));
  }

  /** @param jwk A private P-256 key. @throws Error where it is none. */
  static async from(jwk: webcrypto.JsonWebKey): Promise<AgentKey> {
    return await AgentKey.#of(await crypto.subtle.importKey('jwk', jwk, ES256, false, ['sign']), jwk);
  }

  static async #of(privateKey: webcrypto.CryptoKey, { x = '', y = '' }: webcrypto.JsonWebKey): Promise<AgentKey> {
    // In the order that RFC 7638 §3 demands.
    const publicJwk = { crv: 'P-256', kty: 'EC', x, y };
    return new AgentKey(privateKey, publicJwk, await sha256(JSON.stringify(publicJwk)));
  }

  /**
   * A proof for one call, of use once and within a minute.
   * @param url Of the call; its query counts for nothing. @param token What comes in `Authorization`; undefined where nothing does.
   * @param nonce What the broker last gave in `DPoP-Nonce`, if it ever did (§8).
   */
  async prove(method: string, url: string, token: string | undefined, nonce?: string): Promise<string> {
    const header = { typ: 'dpop+jwt', alg: 'ES256', jwk: this.#public };
    const claims = {
      jti: crypto.randomUUID(),
      htm: method,
      htu: url.replace(/[?#].*$/, ''),
      iat: Math.floor(Date.now() / 1000),
      ...(token === undefined ? {} : { ath: await sha256(token) }),
      ...(nonce === undefined ? {} : { nonce }),
    };
    const input = `${base64url(utf8(JSON.stringify(header)))}.${base64url(utf8(JSON.stringify(claims)))}`;
    const signature = await crypto.subtle.sign({ name: 'ECDSA', hash: 'SHA-256' }, this.#private, utf8(input));
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
