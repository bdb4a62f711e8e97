/** What a kill can stop. DESIGN §4. */
export const killScopes = ['agent', 'task', 'issuer', 'entitlement', 'target', 'all'] as const;
export type KillScope = (typeof killScopes)[number];
