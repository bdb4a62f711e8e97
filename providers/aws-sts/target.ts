import { GetRoleCommand } from '@aws-sdk/client-iam';
import { type ConnectContext, ProviderError, type Ref } from '../../src/provider.ts';
import { ask, type AwsClients, clientsOf } from './clients.ts';
import { AwsClock } from './clock.ts';
import { RoleFence } from './role-fence.ts';
import { allRoles, type AwsTarget } from './schema.ts';

/** A session is powerless at its deadline by AWS's clock; so much later nobody's clock says otherwise. Milliseconds. */
export const skewMillis = 5_000;
/** A role is looked at again after that: somebody may have deleted it and made another one of its name. */
const identityMillis = 30_000;

/** What a role is now. */
export interface RoleIdentity {
  readonly uniqueId: string;
  readonly boundary: string | null;
  readonly maxSessionSeconds: number;
  readonly trust: string;
}

/** One account's roles as the parts of this provider share them. Opening it touches no network. */
export class Target {
  readonly config: AwsTarget;
  readonly context: ConnectContext;
  readonly clock = new AwsClock();
  readonly clients: AwsClients;
  /** Until when a renewal of this process reaches, by AWS's clock. The store may not have heard of it. */
  readonly renewedUntil = new Map<string, number>();
  /** What lost its facts and was reaped here: its end is proven by time, which is the same everywhere. */
  readonly reaped = new Set<string>();
  readonly #fences = new Map<string, RoleFence>();
  readonly #identities = new Map<string, { readonly identity: RoleIdentity; readonly readAt: number }>();

  constructor(config: AwsTarget, context: ConnectContext) {
    this.config = config;
    this.context = context;
    this.clients = clientsOf(config, context, this.clock);
  }

  /** First eight hex digits of the installation: part of what is written. */
  get mark(): string {
    return this.context.installation.replaceAll('-', '').slice(0, 8).toLowerCase();
  }

  get roles(): readonly string[] {
    return allRoles(this.config).map(({ arn }) => arn);
  }

  fenceOf(role: string): RoleFence {
    const known = this.#fences.get(role);
    if (known !== undefined) return known;
    const fence = new RoleFence(this, role);
    this.#fences.set(role, fence);
    return fence;
  }

  /** The roles on which a grant may have a session: its own, or any where a crash lost which. @throws ProviderError */
  rolesOf(ref: Ref): readonly string[] {
    const role = ref.facts?.['role_arn'];
    if (typeof role !== 'string') return this.roles;
    const account = ref.facts?.['account_id'];
    if (account !== this.config.account_id)
      throw new ProviderError(
        'misconfigured',
        `the grant was minted in account ${String(account)}; the target is account ${this.config.account_id}`,
      );
    return [role];
  }

  /** When none of its sessions can do anything any more, with skew to spare, in milliseconds by AWS's clock. */
  powerlessAt(ref: Ref): number {
    const told = ref.facts?.['deadline_ms'];
    return (
      Math.max(
        this.clock.toTarget(ref.deadline).getTime(),
        typeof told === 'number' ? told : 0,
        this.renewedUntil.get(ref.handle) ?? 0,
      ) + skewMillis
    );
  }

  isPowerless(ref: Ref): boolean {
    return this.powerlessAt(ref) <= this.clock.now();
  }

  /** @throws ProviderError `misconfigured` where the role is gone, or another one bears its name. */
  async identify(role: string, signal: AbortSignal, fresh = false): Promise<RoleIdentity> {
    const known = this.#identities.get(role);
    if (!fresh && known !== undefined && performance.now() - known.readAt < identityMillis) return known.identity;
    const command = new GetRoleCommand({ RoleName: nameOf(role) });
    const { Role } = await ask('reading the role', () => this.clients.iam.send(command, { abortSignal: signal }));
    if (Role?.RoleId === undefined || Role.Arn !== role)
      throw new ProviderError('misconfigured', 'reading the role: another account or path answers');
    const pinned = allRoles(this.config).find(({ arn }) => arn === role)?.unique_id;
    if (pinned !== undefined && pinned !== Role.RoleId)
      throw new ProviderError(
        'misconfigured',
        `the role is ${Role.RoleId}, and the catalog names ${pinned}: it was made anew`,
      );
    const identity: RoleIdentity = {
      uniqueId: Role.RoleId,
      boundary: Role.PermissionsBoundary?.PermissionsBoundaryArn ?? null,
      maxSessionSeconds: Role.MaxSessionDuration ?? 3_600,
      trust: decodeURIComponent(Role.AssumeRolePolicyDocument ?? ''),
    };
    this.#identities.set(role, { identity, readAt: performance.now() });
    return identity;
  }

  /** @throws ProviderError `misconfigured` when the facts name another role than the one that bears its name now. */
  async requireIncarnation(ref: Ref, role: string, signal: AbortSignal): Promise<void> {
    const minted = ref.facts?.['role_unique_id'];
    const { uniqueId } = await this.identify(role, signal);
    if (typeof minted === 'string' && minted !== uniqueId)
      throw new ProviderError(
        'misconfigured',
        `the grant was minted by role ${minted}; the one of its name is ${uniqueId} now`,
      );
  }

  close(): void {
    this.clients.sts.destroy();
    this.clients.iam.destroy();
  }
}

/** The last part of a role's ARN. */
export function nameOf(role: string): string {
  return role.slice(role.lastIndexOf('/') + 1);
}
