import { GetPolicyCommand, GetPolicyVersionCommand, GetRoleCommand } from '@aws-sdk/client-iam';
import { type ConnectContext, ProviderError } from '../../src/provider.ts';
import { ask, type AwsClients, clientsOf } from './clients.ts';
import { AwsClock } from './clock.ts';
import { Occupancy } from './occupancy.ts';
import { allRoles, type AwsTarget } from './schema.ts';

/** What STS gives a session at most that a session of another role asks for. */
export const chainedSeconds = 3_600;

/** What a role is now. */
interface RoleIdentity {
  readonly uniqueId: string;
  readonly boundary: string | null;
  readonly maxSessionSeconds: number;
}

/** One AWS account as the broker reaches it. Opening it touches no network. */
export class Account {
  readonly config: AwsTarget;
  readonly context: ConnectContext;
  readonly clock = new AwsClock();
  readonly clients: AwsClients;
  readonly #occupancies = new Map<string, Occupancy>();

  constructor(config: AwsTarget, context: ConnectContext) {
    this.config = config;
    this.context = context;
    this.clients = clientsOf(config, context, this.clock);
  }

  /** First eight hex digits of the installation: part of what is written. */
  get mark(): string {
    return this.context.installation.replaceAll('-', '').slice(0, 8).toLowerCase();
  }

  /** What this process knows of how many grants a role holds. */
  occupancyOf(role: string): Occupancy {
    const known = this.#occupancies.get(role) ?? new Occupancy();
    this.#occupancies.set(role, known);
    return known;
  }

  /** STS gives no session of a role more that another role assumed, and the broker is one. */
  get longestSeconds(): number {
    return Math.min(this.config.max_session_seconds, chainedSeconds);
  }

  /** @throws ProviderError `misconfigured` where the role is gone, or another one bears its name. */
  async identify(role: string, signal: AbortSignal): Promise<RoleIdentity> {
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
    return {
      uniqueId: Role.RoleId,
      boundary: Role.PermissionsBoundary?.PermissionsBoundaryArn ?? null,
      maxSessionSeconds: Role.MaxSessionDuration ?? 3_600,
    };
  }

  /** What a managed policy says now. @throws AwsError */
  async policy(arn: string, signal: AbortSignal): Promise<string> {
    const { iam } = this.clients;
    const doing = 'reading the permissions boundary';
    const { Policy } = await ask(doing, () =>
      iam.send(new GetPolicyCommand({ PolicyArn: arn }), { abortSignal: signal }),
    );
    const command = new GetPolicyVersionCommand({ PolicyArn: arn, VersionId: Policy?.DefaultVersionId });
    const { PolicyVersion } = await ask(doing, () => iam.send(command, { abortSignal: signal }));
    return decodeURIComponent(PolicyVersion?.Document ?? '');
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
