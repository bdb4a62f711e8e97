-- Up Migration
-- Approvals: what a grant that policy wants approved waits for. The grant stands as `pending_approval`, without an obligation to end it: nothing
-- of it is in any target before it was approved, collected and decided again.

-- As in src/domain/approval.ts. Nothing here is ever deleted.
INSERT INTO mayfly.transitions VALUES
  ('approval', '-', 'pending'),
  ('approval', 'pending', 'approved'), ('approval', 'pending', 'denied'), ('approval', 'pending', 'lapsed'),
  ('approval', 'approved', 'collected'), ('approval', 'approved', 'withdrawn'), ('approval', 'approved', 'lapsed'),
  ('approval', 'collected', 'withdrawn');

CREATE TABLE mayfly.approvals (
  id           uuid PRIMARY KEY,
  grant_id     uuid NOT NULL UNIQUE REFERENCES mayfly.grants,
  task_id      uuid NOT NULL,
  target       text NOT NULL,
  -- The decision that wanted it.
  decision_id  uuid NOT NULL,
  state        text NOT NULL,
  -- A word of each is needed.
  groups       text[] NOT NULL CHECK (groups <> '{}'),
  -- Exactly what was asked for, and its SHA-256 by RFC 8785. No secrets: the catalog holds none.
  asked        jsonb NOT NULL,
  digest       bytea NOT NULL CHECK (length(digest) = 32),
  -- Who said what: `{by, groups, at, decision, reason}`, in order.
  words        jsonb NOT NULL DEFAULT '[]',
  requested_at timestamptz NOT NULL,
  -- Of a pending one: until when it can be approved; then until when it can be collected.
  expires_at   timestamptz NOT NULL,
  -- When it came to its last state.
  ended_at     timestamptz,
  -- Why it lapsed.
  because      text,
  CHECK ((ended_at IS NULL) = (state IN ('pending', 'approved'))),
  CHECK ((because IS NULL) = (state <> 'lapsed'))
);
-- What lapses: of all that ever was, only what is open is looked for.
CREATE INDEX approvals_open_until ON mayfly.approvals (expires_at) WHERE state IN ('pending', 'approved');
CREATE INDEX approvals_open_on ON mayfly.approvals (target) WHERE state IN ('pending', 'approved');
-- How many a task has had, whatever became of them.
CREATE INDEX approvals_of_task ON mayfly.approvals (task_id);
CREATE TRIGGER approval_born BEFORE INSERT ON mayfly.approvals FOR EACH ROW EXECUTE FUNCTION mayfly.guard_state('approval');
CREATE TRIGGER approval_state BEFORE UPDATE ON mayfly.approvals FOR EACH ROW
  WHEN (OLD.state IS DISTINCT FROM NEW.state) EXECUTE FUNCTION mayfly.guard_state('approval');

ALTER FUNCTION mayfly.grant_rights(name, name) RENAME TO grant_rights_before_approvals;
CREATE FUNCTION mayfly.grant_rights(runtime name, sequencer name) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  PERFORM mayfly.grant_rights_before_approvals(runtime, sequencer);
  EXECUTE format('GRANT INSERT, UPDATE (state, words, expires_at, ended_at, because) ON mayfly.approvals TO %I', runtime);
  -- Of a grant that is collected, all that is decided anew: its life begins then.
  EXECUTE format('GRANT UPDATE (guarantee, mint_by, created_at, per_call, sink, workload) ON mayfly.grants TO %I', runtime);
END $$;
REVOKE EXECUTE ON FUNCTION mayfly.grant_rights(name, name) FROM PUBLIC;
