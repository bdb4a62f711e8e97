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
    // What signals say of it: low, medium, high, critical; unknown where none stands.
    risk: String,
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
    // One running copy of the workload (a pod, a workflow run); "" where its source does not tell them apart.
    instance: String,
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
    // What kinds of data it opens, in the catalog's own words, e.g. pii, payments.
    data_classes: Set<String>,
    // Data can leave through it.
    sink: Bool,
    max_ttl: duration,
  };

  // What the task has and had. To renew and to retain: beside the grant itself.
  type Own = {
    // Grants that are not yet contained.
    live_grants: Long,
    // All that it ever had.
    grants: Long,
    // Of these, on the entitlement that it is about. 0 for a call.
    grants_of_this: Long,
    // How often it was asked about before a call (AuthZEN), and how often that was permitted.
    evaluations: Long,
    evaluations_permitted: Long,
  };

  // The same for the whole tree that the task belongs to: what one of its tasks has, all of them may know.
  type Tree = {
    live_grants: Long,
    grants: Long,
    grants_of_this: Long,
    evaluations: Long,
    evaluations_permitted: Long,
    // Of the live ones, on sinks of confidential or restricted sensitivity.
    sensitive_sinks: Long,
    // What the live ones are for: \`context.tree.held.contains(Mayfly::Entitlement::"crm/export")\`.
    held: Set<Entitlement>,
    data_classes: Set<String>,
    // Systems on which it ever had something.
    touched: Set<Target>,
    // Minutes of access so far, all grants together.
    held_minutes: Long,
  };

  // Sources of signals that are silent for longer than they may be. To retain: as if none were, since silence alone ends nothing.
  type Signals = {
    stale: Bool,
    stale_sources: Set<String>,
    // What those could tell of: workload_risk, incident, change_freeze, device, user.
    stale_kinds: Set<String>,
  };

  type Asked = {
    now: datetime,
    // What the grant would live by every bound except policy's own @max_ttl.
    ttl: duration,
    // immediate, propagating, expiry-only or irrevocable: how it can be ended early.
    guarantee: String,
    // The task names the agent's key, and each call is proven by it.
    proof_of_possession: Bool,
    own: Own,
    tree: Tree,
    // An incident is open, or a change freeze on, for everything, for the target or for its environment.
    incident: Bool,
    change_freeze: Bool,
    // Of the workload or of whom it acts for: compliant, not-compliant, unknown.
    device: String,
    // Whom the task acts for: enabled, disabled, unknown.
    user: String,
    signals: Signals,
  };

  // Whatever is asked by AuthZEN. The catalog names its own actions, and may put them in here:
  // \`action read in [Mayfly::Action::"evaluate"] appliesTo { … }\`.
  action evaluate;

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
