import type { webcrypto } from 'node:crypto';

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
   * @param url Of the call; its query counts for nothing. @param token What comes in `Authorization`.
   */
  async prove(method: string, url: string, token: string): Promise<string> {
    const claims = { htm: method, htu: url.replace(/[?#].*$/, ''), ath: await sha256(token) };
    return await this.#sign('dpop+jwt', claims);
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
