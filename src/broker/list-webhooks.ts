import type { Webhook } from '../catalog/types.ts';
import type { Caller } from '../identity/types.ts';
import { listWebhookStates, type WebhookState } from '../store/webhooks.ts';
import type { BrokerDeps } from './deps.ts';
import { requireRole, type ScopedTargets } from './operator-scope.ts';

export interface ListedWebhook {
  readonly definition: Webhook;
  readonly state: WebhookState;
}

/** The webhooks of the active catalog, by name: those that tell of nothing but targets in the caller's scope. */
export async function listWebhooks(deps: BrokerDeps, caller: Caller): Promise<readonly ListedWebhook[]> {
  const { scope } = requireRole(deps, caller, 'viewer');
  const states = new Map((await listWebhookStates(deps.db)).map((state) => [state.name, state]));
  return [...deps.catalog.current().catalog.webhooks]
    .sort((a, b) => (a.name < b.name ? -1 : 1))
    .flatMap((definition) => {
      const state = states.get(definition.name);
      return state !== undefined && isWebhookInScope(scope, definition) ? [{ definition, state }] : [];
    });
}

/** One that may tell of any target is for those whose role holds everywhere. */
export function isWebhookInScope(scope: ScopedTargets, { targets }: Webhook): boolean {
  return scope === null || (targets !== null && targets.every((target) => scope.has(target)));
}
