/** Why a caller is not believed: what is wrong with its token, its client certificate, or the proof beside them. For `problems.ts`. */
export const callerProblems = {
  workload_token_missing: [401, 'No workload token was sent', 'Send `Authorization: Bearer <workload token>`.'],
  workload_token_invalid: [
    401,
    'The workload token is not accepted',
    'Get a new token, meant for this broker, from your identity source.',
  ],
  workload_token_expired: [401, 'The workload token has expired', 'Get a new token from your identity source.'],
  workload_token_malformed: [
    401,
    'The workload token is not a strict compact JWS',
    'Send exactly one `Authorization: Bearer <token>`: three base64url parts without padding, at most 16 KiB, each JSON member once.',
  ],
  workload_token_type_wrong: [
    401,
    'The workload token has the wrong type',
    'Send a token whose `typ` is `JWT`, `at+jwt` or absent; task requests and proofs are no workload tokens.',
  ],
  workload_token_algorithm_refused: [
    401,
    'The workload token is signed with an algorithm that is not allowed',
    'Use an algorithm that the catalog lists for this identity source.',
  ],
  workload_token_header_refused: [
    401,
    'The workload token carries a header that is not allowed',
    'Leave out `jwk`, `jku`, `x5u`, `x5c`, `crit`, `b64`, `zip` and `enc`.',
  ],
  workload_token_issuer_unknown: [
    401,
    'The workload token comes from an issuer that is not trusted',
    'Get a token from an identity source that the catalog trusts.',
  ],
  workload_token_key_unknown: [
    401,
    'The workload token is signed with a key that its issuer does not publish',
    'Get a new token from your identity source; after a change of its keys, try again in 30 seconds.',
  ],
  workload_token_signature_invalid: [
    401,
    'The signature of the workload token does not hold',
    'Send the token exactly as your identity source gave it.',
  ],
  workload_token_audience_wrong: [
    401,
    'The workload token is not meant for this broker',
    'Get a token whose `aud` is this broker’s public URL, alone.',
  ],
  workload_token_not_yet_valid: [
    401,
    'The workload token is not valid yet',
    'Check the clock of your identity source.',
  ],
  workload_token_bound: [
    401,
    'The workload token is bound to a key',
    'Send it as `Authorization: DPoP <token>`, with a proof of that key in the header `DPoP`.',
  ],
  workload_token_unbound: [
    401,
    'The workload token is not bound to a key',
    'Send it as `Authorization: Bearer <token>`; a proof may stand beside it.',
  ],
  certificate_issuer_unknown: [
    401,
    'The client certificate comes from a trust domain that is not trusted',
    'Show an X.509-SVID of a trust domain that the catalog trusts, or send a workload token.',
  ],
  certificate_refused: [
    401,
    'The client certificate is no X.509-SVID of a workload',
    'Show the X.509-SVID that your SPIFFE Workload API gave you, or send a workload token.',
  ],
  certificate_untrusted: [
    401,
    'The client certificate does not lead to the bundle of its trust domain',
    'Show it with the intermediate certificates that came with it; after a change of the authorities, try again in 30 seconds.',
  ],
  certificate_expired: [
    401,
    'The client certificate has expired',
    'Get a new X.509-SVID, and open a new connection with it.',
  ],
  certificate_not_yet_valid: [
    401,
    'The client certificate is not valid yet',
    'Check the clock of your trust domain’s servers.',
  ],
  certificate_missing: [
    401,
    'The workload token is bound to a client certificate, and none was shown',
    'Connect to this broker itself by mutual TLS, with the certificate that `cnf.x5t#S256` of the token names.',
  ],
  certificate_wrong: [
    401,
    'The workload token is bound to another client certificate',
    'Connect with the certificate that `cnf.x5t#S256` of the token names, or get a new token with this one.',
  ],
  proof_missing: [
    401,
    'No proof of possession was sent',
    'Send one `DPoP: <proof>` (RFC 9449), made for this very call.',
  ],
  proof_malformed: [
    401,
    'The proof of possession is not a strict compact JWS',
    'Send exactly one `DPoP` header: three base64url parts without padding, at most 16 KiB, each JSON member once.',
  ],
  proof_type_wrong: [401, 'The proof of possession has the wrong type', 'Sign it with `typ: dpop+jwt`.'],
  proof_algorithm_refused: [
    401,
    'The proof of possession is signed with an algorithm that is not allowed',
    'Use one of those that `algs` of WWW-Authenticate names.',
  ],
  proof_header_refused: [
    401,
    'The proof of possession carries a header that is not allowed',
    'Send only `alg`, `typ` and `jwk`.',
  ],
  proof_key_refused: [
    401,
    'The key in the proof of possession is not accepted',
    'Put the public key alone into `jwk`: P-256 or P-384, Ed25519, or RSA of at least 2048 bits, as `alg` says.',
  ],
  proof_signature_invalid: [
    401,
    'The signature of the proof of possession does not hold',
    'Sign the exact bytes that are sent, with the key in `jwk`.',
  ],
  proof_claims_invalid: [
    401,
    'A claim of the proof of possession is missing or of the wrong kind',
    '`errors` names each one.',
  ],
  proof_method_wrong: [
    401,
    'The proof of possession is for another method',
    'Set `htm` to the method of this call, and make a proof for each call.',
  ],
  proof_address_wrong: [
    401,
    'The proof of possession is for another address',
    'Set `htu` to this broker’s public URL and the path of this call, without query and fragment.',
  ],
  proof_time_wrong: [
    401,
    'The proof of possession is too old or comes from the future',
    'Make it for this call: `iat` may differ from the broker’s clock by 60 seconds.',
  ],
  proof_token_wrong: [
    401,
    'The proof of possession is for another token',
    'Set `ath` to the SHA-256 of the token in this call, in base64url.',
  ],
  proof_key_wrong: [
    401,
    'The proof of possession is by another key than the token names',
    'Sign it with the key whose thumbprint stands in `cnf.jkt` of the token.',
  ],
  proof_used: [401, 'The proof of possession was used already', 'Make a new one, with a new `jti`, for each call.'],
  use_dpop_nonce: [
    401,
    'The proof of possession carries no nonce of this broker, or an old one',
    'Make a new proof with the value of the header `DPoP-Nonce` of this answer as its `nonce`.',
  ],
  session_ended: [401, 'The session has ended', 'Sign in again, at /login.'],
  login_failed: [
    401,
    'Nobody was signed in',
    'Begin again, at /login; if that fails too, tell the platform team the request id.',
  ],
} as const satisfies Record<string, readonly [number, string, string]>;
