-- Up Migration
-- Who puts a catalog in force, and what takes two people. Only adds.

-- As whoever applied it said: where the files come from, and the word of whoever vouches for them (a compact JWS).
ALTER TABLE mayfly.catalog_revisions ADD COLUMN commit_id text, ADD COLUMN signature text;

-- What one operator asked for and another one must ask for as well. Rows that nobody seconded are taken by the next who asks the same.
CREATE TABLE mayfly.second_person (
  id          uuid PRIMARY KEY,
  operation   text NOT NULL CHECK (operation IN ('apply', 'write_off', 'lift_kill')),
  -- Of exactly what was asked.
  digest      bytea NOT NULL CHECK (length(digest) = 32),
  resource    text NOT NULL,
  asked_by    text NOT NULL,
  -- Who that is: two names of one person are one.
  issuer      text NOT NULL,
  subject     text NOT NULL,
  asked_at    timestamptz NOT NULL,
  expires_at  timestamptz NOT NULL,
  seconded_by text,
  seconded_at timestamptz,
  CHECK ((seconded_at IS NULL) = (seconded_by IS NULL))
);
CREATE UNIQUE INDEX second_person_open ON mayfly.second_person (operation, digest) WHERE seconded_at IS NULL;

-- What was written off, and is found to live in its target.
INSERT INTO mayfly.transitions VALUES ('revocation', 'written_off', 'due');

CREATE TRIGGER audit_event_of_two AFTER INSERT ON mayfly.audit_events FOR EACH ROW
  WHEN (NEW.type IN ('operation.awaited', 'catalog.guard_overridden', 'revocation.reopened')) EXECUTE FUNCTION mayfly.notice_event();

ALTER FUNCTION mayfly.grant_rights(name, name) RENAME TO grant_rights_before_0019;
CREATE FUNCTION mayfly.grant_rights(runtime name, sequencer name) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  PERFORM mayfly.grant_rights_before_0019(runtime, sequencer);
  EXECUTE format('GRANT INSERT, UPDATE (id, resource, asked_by, issuer, subject, asked_at, expires_at, seconded_by, seconded_at)
    ON mayfly.second_person TO %I', runtime);
END $$;
REVOKE EXECUTE ON FUNCTION mayfly.grant_rights(name, name) FROM PUBLIC;
