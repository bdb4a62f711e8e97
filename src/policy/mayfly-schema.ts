/**
 * The broker's own part of the Cedar schema. What a policy may know stands here, and nothing else: a request is
 * validated against it before it is decided. A catalog may add types and actions of its own (tools, data, users) in
 * other namespaces, but may not touch this one.
 *
 * Lists that grow here (actions, attributes) are safe for old catalogs; renaming or removing is not.
 */
export const mayflySchema = `
namespace Mayfly {
  // An agent process: \`<source>:<subject>\`, e.g. Mayfly::Workload::"dev:agent-recon".
  entity Workload {
    source: String,
    subject: String,
  };

  // A task is in its workload: \`principal in Mayfly::Workload::"dev:agent-recon"\`.
  // Tags are the params of the signed request, as text: \`principal.hasTag("tenant") && principal.getTag("tenant") == "acme"\`.
  entity Task in [Workload] {
    purpose: String,
    // "" where the purpose has no phases.
    phase: String,
    // Name of the task issuer in trust.yaml.
    issuer: String,
    // On whose behalf.
    subject: String,
    workload: Workload,
    // 0 for a task that was opened, 1 for its children, and so on.
    depth: Long,
    created_at: datetime,
    not_after: datetime,
  } tags String;

  // Tags are the target's labels: \`resource.target.hasTag("team") && resource.target.getTag("team") == "finance"\`.
  entity Target {
    provider: String,
    environment: String,
    owner: String,
    // public, internal, confidential or restricted.
    sensitivity: String,
  } tags String;

  // An entitlement is in its target: \`resource in Mayfly::Target::"ledger-db"\`.
  entity Entitlement in [Target] {
    target: Target,
    sensitivity: String,
    // What it lets an agent do, e.g. read, write.
    actions: Set<String>,
    // Data can leave through it.
    sink: Bool,
    max_ttl: duration,
  };

  type Tree = {
    // Grants of the whole task tree that are not yet contained.
    live_grants: Long,
    // Of those, on sinks of confidential or restricted sensitivity.
    sensitive_sinks: Long,
  };

  type Asked = {
    now: datetime,
    // What the grant would live by every bound except policy's own @max_ttl.
    ttl: duration,
    // immediate, propagating, expiry-only or irrevocable: how it can be ended early.
    guarantee: String,
    tree: Tree,
  };

  // issue: a grant is asked for. renew: a live one is to live longer. retain: asked again while it lives (drift).
  action issue, renew, retain appliesTo {
    principal: [Task],
    resource: [Entitlement],
    context: Asked,
  };
}
`;

/** Namespaces that belong to the broker: \`Mayfly\` and everything below it. */
export const ownNamespace = 'Mayfly';
