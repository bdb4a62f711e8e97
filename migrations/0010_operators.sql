-- Up Migration
-- Budgets: how many tasks of one issuer are alive. Sessions of operators.

CREATE INDEX tasks_alive_of_issuer ON mayfly.tasks (issuer) WHERE state IN ('offered', 'active', 'suspended');

-- Operators who signed in with a browser. No token stands here, nor what the browser holds.
CREATE TABLE mayfly.operator_sessions (
  -- SHA-256 of the secret in the browser's cookie.
  digest     bytea PRIMARY KEY,
  source     text NOT NULL,
  subject    text NOT NULL,
  -- The claims that say which roles: what they give is for the catalog to say, at each call.
  claims     jsonb NOT NULL,
  created_at timestamptz NOT NULL,
  expires_at timestamptz NOT NULL CHECK (expires_at > created_at)
);
CREATE INDEX operator_sessions_to_forget ON mayfly.operator_sessions (expires_at);

ALTER FUNCTION mayfly.grant_rights(name, name) RENAME TO grant_rights_before_sessions;
CREATE FUNCTION mayfly.grant_rights(runtime name, sequencer name) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  PERFORM mayfly.grant_rights_before_sessions(runtime, sequencer);
  EXECUTE format('GRANT INSERT, DELETE ON mayfly.operator_sessions TO %I', runtime);
END $$;
REVOKE EXECUTE ON FUNCTION mayfly.grant_rights(name, name) FROM PUBLIC;
