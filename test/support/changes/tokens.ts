import { ask } from '../ask.ts';
import { type Change, forge } from '../forge.ts';
import { call, READ, refused, refuses, type Send } from '../refusals.ts';

const now = () => Math.floor(Date.now() / 1000);

const taskPath = () => `/v1/tasks/${refused().task.id}`;

export const rightToken = call('GET', taskPath);

/** One right workload token, each time with one thing changed. */
export function refuseChangedTokens(): void {
  const bearing =
    (make: () => string | Promise<string>): Send =>
    async () => {
      const token = await make();
      return await call('POST', () => `/v1/tasks/${refused().task.id}/grants`, {
        token,
        body: { entitlement: READ },
      })();
    };
  const changed = (change: Change): Send =>
    bearing(() => forge(refused().house.devDir, 'workloads', refused().token, change));
  const claims = (members: object): Send => changed(({ claims: all }) => void Object.assign(all, members));
  const header = (members: object): Send => changed(({ header: all }) => void Object.assign(all, members));
  const authorized =
    (write: (token: string) => string | string[]): Send =>
    async () => {
      const headers = { authorization: write(refused().token) };
      return await call('GET', taskPath, { headers })();
    };
  const operator = async () => {
    const { issuer, url } = refused().house;
    return (await issuer.signOperatorToken({ subject: 'olga', roles: ['admin'], audience: url })).token;
  };

  refuses(401, 'workload_token_missing', {
    none: async () => await ask(refused().house.url, 'GET', taskPath()),
    'another scheme': authorized(() => 'Basic eDp5'),
  });
  refuses(401, 'workload_token_malformed', {
    'an empty one': authorized(() => 'Bearer '),
    'two in one': authorized((token) => `Bearer ${token} ${token}`),
    'two in a list': authorized((token) => `Bearer ${token}, Bearer ${token}`),
    nonsense: bearing(() => 'nonsense'),
    '17 kB': claims({ x: 'x'.repeat(17_000) }),
    'a claim twice': changed((draft) => {
      draft.payload = JSON.stringify(draft.claims).replace('{', '{"sub":"x",');
    }),
  });
  refuses(400, 'invalid_request', {
    'two headers': [authorized((token) => [`Bearer ${token}`, `Bearer ${token}`]), 'authorization'],
  });
  refuses(401, 'workload_token_unbound', { 'one as if it were bound': authorized((token) => `DPoP ${token}`) });
  refuses(400, 'key_binding_unsupported', {
    'one with a key': claims({ cnf: { jkt: 'x' } }),
  });
  refuses(401, 'workload_token_type_wrong', {
    'a task request instead': bearing(() => refused().house.sign()),
    'another type': header({ typ: 'dpop+jwt' }),
  });
  refuses(401, 'workload_token_algorithm_refused', {
    'no algorithm': header({ alg: 'none' }),
    'another algorithm': header({ alg: 'RS256' }),
  });
  refuses(401, 'workload_token_header_refused', { 'a key of its own': header({ jwk: {} }) });
  refuses(401, 'workload_token_key_unknown', { 'an unknown key': header({ kid: 'another' }) });
  refuses(401, 'workload_token_issuer_unknown', { 'an unknown issuer': claims({ iss: 'https://evil.example' }) });
  refuses(401, 'workload_token_signature_invalid', {
    'another’s signature': bearing(() => forge(refused().house.devDir, 'operators', refused().token, () => {})),
  });
  refuses(401, 'workload_token_audience_wrong', {
    'another audience': claims({ aud: 'https://another.example' }),
    'two audiences': changed(({ claims: all }) => void (all['aud'] = [all['aud'], 'x'])),
  });
  refuses(401, 'workload_token_expired', { 'one that has expired': claims({ iat: now() - 900, exp: now() - 6 }) });
  refuses(401, 'workload_token_not_yet_valid', { 'one from the future': claims({ iat: now() + 300 }) });
  refuses(401, 'workload_token_invalid', {
    'one without an end': [claims({ exp: undefined }), '$.exp'],
    'one without a name': [claims({ sub: undefined }), '$.sub'],
    'an invisible name': [claims({ sub: 'agent-recon\u200b' }), '$.sub'],
    'an operator’s': bearing(operator),
  });
  refuses(404, 'not_found', { 'another workload’s': bearing(() => refused().house.token('agent-else')) });
}
