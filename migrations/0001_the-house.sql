-- Up Migration
-- The state of the broker: tasks, grants, the obligations to end them, decisions, evidence, catalog revisions.
-- Time is the store's clock, read by clock_timestamp() after the locks are held.

-- Digests of the applied files, so that a changed one is noticed.
CREATE TABLE mayfly.migration_digests (
  name   text PRIMARY KEY,
  sha256 text NOT NULL
);

CREATE TABLE mayfly.installation (
  singleton  boolean PRIMARY KEY DEFAULT true CHECK (singleton),
  id         uuid NOT NULL DEFAULT gen_random_uuid(),
  -- Only a store that `mayfly dev` made believes in dev trust, and dev mode uses no other.
  dev        boolean NOT NULL,
  created_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- The state machines of src/domain, once more, so that the database refuses what they refuse.
-- `from_state` is '-' for a birth. A test compares this table with the code.
CREATE TABLE mayfly.transitions (
  machine    text NOT NULL,
  from_state text NOT NULL,
  to_state   text NOT NULL,
  PRIMARY KEY (machine, from_state, to_state)
);
INSERT INTO mayfly.transitions VALUES
  ('task', '-', 'active'), ('task', '-', 'offered'),
  ('task', 'offered', 'active'), ('task', 'offered', 'cancelled'),
  ('task', 'active', 'suspended'), ('task', 'active', 'completed'), ('task', 'active', 'cancelled'),
  ('task', 'active', 'expired'), ('task', 'active', 'revoked'),
  ('task', 'suspended', 'active'), ('task', 'suspended', 'completed'), ('task', 'suspended', 'cancelled'),
  ('task', 'suspended', 'expired'), ('task', 'suspended', 'revoked'),
  ('grant', '-', 'minting'), ('grant', '-', 'pending_approval'), ('grant', '-', 'denied'),
  ('grant', 'pending_approval', 'approved'), ('grant', 'pending_approval', 'denied'),
  ('grant', 'approved', 'minting'), ('grant', 'approved', 'denied'),
  ('grant', 'minting', 'active'), ('grant', 'minting', 'revoking'),
  ('grant', 'active', 'revoking'), ('grant', 'revoking', 'revoked'),
  ('revocation', '-', 'scheduled'), ('revocation', 'scheduled', 'due'),
  ('revocation', 'due', 'running'), ('revocation', 'due', 'written_off'),
  ('revocation', 'running', 'contained'), ('revocation', 'running', 'due'),
  ('revocation', 'contained', 'clean');

-- TG_ARGV[0] is the machine. Fires only when a state is born or changes.
CREATE FUNCTION mayfly.guard_state() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  was text := '-';
BEGIN
  IF TG_OP = 'UPDATE' THEN
    was := OLD.state;
  END IF;
  PERFORM 1 FROM mayfly.transitions t WHERE t.machine = TG_ARGV[0] AND t.from_state = was AND t.to_state = NEW.state;
  IF NOT FOUND THEN
    RAISE EXCEPTION 'illegal transition of %: % to %', TG_ARGV[0], was, NEW.state USING ERRCODE = 'check_violation';
  END IF;
  RETURN NEW;
END $$;

CREATE TABLE mayfly.catalog_revisions (
  number     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  digest     text NOT NULL,
  files      jsonb NOT NULL,
  applied_by text NOT NULL,
  applied_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE TABLE mayfly.catalog_active (
  singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
  revision  bigint NOT NULL REFERENCES mayfly.catalog_revisions
);

CREATE TABLE mayfly.tasks (
  id               uuid PRIMARY KEY,
  root_id          uuid NOT NULL REFERENCES mayfly.tasks,
  parent_id        uuid REFERENCES mayfly.tasks,
  depth            integer NOT NULL CHECK (depth >= 0),
  max_depth        integer NOT NULL CHECK (max_depth >= 0),
  issuer           text NOT NULL,
  external_id      text NOT NULL,
  jti              text NOT NULL,
  -- SHA-256 of the payload's bytes: another spelling of the signature is the same request.
  request_digest   bytea NOT NULL,
  txn              text,
  state            text NOT NULL,
  purpose          text NOT NULL,
  phase            text,
  subject          text NOT NULL,
  workload_source  text NOT NULL,
  workload_subject text NOT NULL,
  ceiling          jsonb NOT NULL,
  intent_hash      text,
  opened_revision  bigint NOT NULL,
  created_at       timestamptz NOT NULL,
  not_after        timestamptz NOT NULL CHECK (not_after > created_at),
  ended_at         timestamptz,
  ended_by         text,
  UNIQUE (issuer, external_id),
  UNIQUE (issuer, jti),
  CHECK ((ended_at IS NULL) = (state IN ('offered', 'active', 'suspended'))),
  CHECK ((ended_at IS NULL) = (ended_by IS NULL)),
  CHECK ((parent_id IS NULL) = (root_id = id))
);
CREATE INDEX tasks_of_root ON mayfly.tasks (root_id);
CREATE INDEX tasks_alive_until ON mayfly.tasks (not_after) WHERE state IN ('active', 'suspended');
CREATE TRIGGER task_born BEFORE INSERT ON mayfly.tasks FOR EACH ROW EXECUTE FUNCTION mayfly.guard_state('task');
CREATE TRIGGER task_state BEFORE UPDATE ON mayfly.tasks FOR EACH ROW
  WHEN (OLD.state IS DISTINCT FROM NEW.state) EXECUTE FUNCTION mayfly.guard_state('task');

-- What can be found again after years: which inputs, which policies, which revision.
-- Foreign keys stand where they cost no hot row: a reference to the revision, say, would lock that one row FOR KEY SHARE
-- at every ask. Nothing here is ever deleted.
CREATE TABLE mayfly.decisions (
  id              uuid PRIMARY KEY,
  task_id         uuid NOT NULL,
  action          text NOT NULL,
  resource        text NOT NULL,
  permitted       boolean NOT NULL,
  policies        text[] NOT NULL,
  errors          text[] NOT NULL,
  max_ttl_seconds integer,
  revision        bigint NOT NULL,
  inputs          jsonb NOT NULL,
  decided_at      timestamptz NOT NULL
);
CREATE INDEX decisions_of_task ON mayfly.decisions (task_id);

CREATE TABLE mayfly.grants (
  id               uuid PRIMARY KEY,
  task_id          uuid NOT NULL REFERENCES mayfly.tasks,
  root_id          uuid NOT NULL,
  entitlement      text NOT NULL,
  target           text NOT NULL,
  params           jsonb NOT NULL,
  sink             boolean NOT NULL,
  state            text NOT NULL,
  handle           text NOT NULL,
  facts            jsonb,
  guarantee        jsonb NOT NULL,
  deadline         timestamptz NOT NULL,
  -- A mint that has not taken effect by then has none.
  mint_by          timestamptz NOT NULL,
  decision_id      uuid NOT NULL REFERENCES mayfly.decisions,
  decided_revision bigint NOT NULL,
  created_at       timestamptz NOT NULL,
  activated_at     timestamptz,
  ended_at         timestamptz,
  ended_by         text,
  UNIQUE (target, handle),
  CHECK ((ended_at IS NULL) = (ended_by IS NULL)),
  CHECK (ended_at IS NOT NULL OR state NOT IN ('revoking', 'revoked'))
);
CREATE INDEX grants_of_task ON mayfly.grants (task_id);
-- Limits and tree facts count what is not yet contained.
CREATE INDEX grants_uncontained_of_root ON mayfly.grants (root_id) WHERE state IN ('minting', 'active', 'revoking');
CREATE TRIGGER grant_born BEFORE INSERT ON mayfly.grants FOR EACH ROW EXECUTE FUNCTION mayfly.guard_state('grant');
CREATE TRIGGER grant_state BEFORE UPDATE ON mayfly.grants FOR EACH ROW
  WHEN (OLD.state IS DISTINCT FROM NEW.state) EXECUTE FUNCTION mayfly.guard_state('grant');

-- The obligation to end a grant. Never deleted. The partial indexes keep the sweep O(due), not O(outstanding).
CREATE TABLE mayfly.revocations (
  id             uuid PRIMARY KEY,
  grant_id       uuid NOT NULL UNIQUE REFERENCES mayfly.grants,
  target         text NOT NULL,
  state          text NOT NULL,
  -- When the grant must end; pulled forward by an early end.
  due_at         timestamptz NOT NULL,
  -- Not claimed before: due_at at first, later the next try.
  try_at         timestamptz NOT NULL,
  attempts       integer NOT NULL DEFAULT 0,
  last_error     text,
  last_error_at  timestamptz,
  -- The objective for containment was missed at this time.
  overdue_at     timestamptz,
  -- Fencing number of the claim; a worker that lost its claim cannot write any more.
  claim_number   bigint,
  claimed_by     text,
  claimed_until  timestamptz,
  evidence       jsonb,
  contained_at   timestamptz,
  clean_at       timestamptz,
  CHECK ((contained_at IS NOT NULL) = (state IN ('contained', 'clean'))),
  CHECK ((clean_at IS NOT NULL) = (state = 'clean')),
  CHECK (state <> 'running' OR (claim_number IS NOT NULL AND claimed_until IS NOT NULL))
);
CREATE INDEX revocations_scheduled ON mayfly.revocations (due_at) WHERE state = 'scheduled';
CREATE INDEX revocations_due ON mayfly.revocations (target, try_at) WHERE state = 'due';
CREATE INDEX revocations_running ON mayfly.revocations (claimed_until) WHERE state = 'running';
-- Not contained yet and not cried about: what the objective is measured on.
CREATE INDEX revocations_not_overdue ON mayfly.revocations (due_at) WHERE state IN ('due', 'running') AND overdue_at IS NULL;
CREATE INDEX revocations_in_hand ON mayfly.revocations (target) WHERE state IN ('due', 'running', 'contained');
CREATE INDEX revocations_to_clean ON mayfly.revocations (target, try_at) WHERE state = 'contained';
CREATE TRIGGER revocation_born BEFORE INSERT ON mayfly.revocations FOR EACH ROW EXECUTE FUNCTION mayfly.guard_state('revocation');
CREATE TRIGGER revocation_state BEFORE UPDATE ON mayfly.revocations FOR EACH ROW
  WHEN (OLD.state IS DISTINCT FROM NEW.state) EXECUTE FUNCTION mayfly.guard_state('revocation');
CREATE SEQUENCE mayfly.claim_numbers;

CREATE TABLE mayfly.idempotency_keys (
  task_id     uuid NOT NULL REFERENCES mayfly.tasks,
  key         text NOT NULL,
  body_digest bytea NOT NULL,
  grant_id    uuid NOT NULL REFERENCES mayfly.grants DEFERRABLE INITIALLY DEFERRED,
  PRIMARY KEY (task_id, key)
);

-- Evidence: INSERT and SELECT only. `leaf_hash` is taken at insert, so that a later edit shows.
-- The minimum fields are never null; where one does not apply it says 'none'.
CREATE TABLE mayfly.audit_events (
  id             uuid PRIMARY KEY,
  ts             timestamptz NOT NULL,
  type           text NOT NULL,
  agent          text NOT NULL,
  subject        text NOT NULL,
  resource       text NOT NULL,
  action         text NOT NULL,
  decision       text NOT NULL CHECK (decision IN ('permit', 'deny', 'none')),
  correlation_id text NOT NULL,
  posture        text NOT NULL,
  cause          text NOT NULL,
  task_id        uuid,
  grant_id       uuid,
  decision_id    uuid,
  txn            text,
  policy_digest  text NOT NULL,
  payload        jsonb NOT NULL,
  leaf_hash      bytea NOT NULL CHECK (length(leaf_hash) = 32)
);
CREATE INDEX audit_events_of_task ON mayfly.audit_events (task_id, ts, id) WHERE task_id IS NOT NULL;
CREATE INDEX audit_events_by_time ON mayfly.audit_events (ts, id);

-- The least that each login needs. Called by `mayfly migrate` after every migration with the names of the logins.
CREATE FUNCTION mayfly.grant_rights(runtime name, sequencer name) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  EXECUTE format('REVOKE ALL ON ALL TABLES IN SCHEMA mayfly FROM %I, %I', runtime, sequencer);
  EXECUTE format('GRANT USAGE ON SCHEMA mayfly TO %I, %I', runtime, sequencer);
  EXECUTE format('GRANT SELECT ON ALL TABLES IN SCHEMA mayfly TO %I', runtime);
  EXECUTE format('GRANT INSERT ON mayfly.tasks, mayfly.grants, mayfly.revocations, mayfly.decisions, mayfly.idempotency_keys,
    mayfly.audit_events, mayfly.catalog_revisions, mayfly.catalog_active TO %I', runtime);
  EXECUTE format('GRANT UPDATE (state, phase, ended_at, ended_by) ON mayfly.tasks TO %I', runtime);
  EXECUTE format('GRANT UPDATE (state, facts, deadline, decision_id, decided_revision, activated_at, ended_at, ended_by)
    ON mayfly.grants TO %I', runtime);
  EXECUTE format('GRANT UPDATE (state, due_at, try_at, attempts, last_error, last_error_at, overdue_at, claim_number, claimed_by,
    claimed_until, evidence, contained_at, clean_at) ON mayfly.revocations TO %I', runtime);
  EXECUTE format('GRANT UPDATE (grant_id) ON mayfly.idempotency_keys TO %I', runtime);
  EXECUTE format('GRANT UPDATE (revision) ON mayfly.catalog_active TO %I', runtime);
  EXECUTE format('GRANT USAGE ON SEQUENCE mayfly.claim_numbers TO %I', runtime);
  EXECUTE format('GRANT SELECT ON mayfly.installation, mayfly.audit_events TO %I', sequencer);
END $$;
REVOKE EXECUTE ON FUNCTION mayfly.grant_rights(name, name) FROM PUBLIC;
