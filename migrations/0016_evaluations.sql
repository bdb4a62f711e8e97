-- Up Migration
-- An evaluation may be about somebody who is no task: a workload, or a user of the catalog's own.
ALTER TABLE mayfly.decisions ALTER COLUMN task_id DROP NOT NULL;

-- Permits of @single_use. Spent by one conditional update; `bound` is a digest of who asked, about whom as it then was, and of all that was asked.
CREATE TABLE mayfly.single_uses (
  decision_id uuid PRIMARY KEY REFERENCES mayfly.decisions,
  bound       bytea NOT NULL,
  valid_until timestamptz NOT NULL,
  spent_by    uuid REFERENCES mayfly.decisions
);

ALTER FUNCTION mayfly.grant_rights(name, name) RENAME TO grant_rights_before_0016;
CREATE FUNCTION mayfly.grant_rights(runtime name, sequencer name) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  PERFORM mayfly.grant_rights_before_0016(runtime, sequencer);
  EXECUTE format('GRANT INSERT ON mayfly.single_uses TO %I', runtime);
  EXECUTE format('GRANT UPDATE (spent_by) ON mayfly.single_uses TO %I', runtime);
END $$;
REVOKE EXECUTE ON FUNCTION mayfly.grant_rights(name, name) FROM PUBLIC;
