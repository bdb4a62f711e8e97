-- Up Migration
-- Proof of possession: which key or running copy a task belongs to, and which proofs were used.

-- SHA-256 thumbprint (RFC 7638) of the key that the signed request names. Null: its issuer is exempt, or it was opened before there
-- were keys.
ALTER TABLE mayfly.tasks ADD COLUMN key_thumbprint text;
-- The running copy of the workload that opened it, where its tokens tell copies apart. Owns the task where no key does.
ALTER TABLE mayfly.tasks ADD COLUMN instance text;
-- SHA-256 thumbprint of another key that credentials may be sealed to.
ALTER TABLE mayfly.tasks ADD COLUMN delivery_thumbprint text;

-- Shared by all replicas: the insert decides which use of a proof is its first one. No history, so that it stays small.
CREATE TABLE mayfly.dpop_proofs (
  -- SHA-256 of the key's thumbprint and the proof's jti.
  digest    bytea PRIMARY KEY,
  -- From then on no replica takes the proof anyway.
  forget_at timestamptz NOT NULL
);
CREATE INDEX dpop_proofs_to_forget ON mayfly.dpop_proofs (forget_at);

ALTER FUNCTION mayfly.grant_rights(name, name) RENAME TO grant_rights_before_proofs;
CREATE FUNCTION mayfly.grant_rights(runtime name, sequencer name) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  PERFORM mayfly.grant_rights_before_proofs(runtime, sequencer);
  -- UPDATE only locks what is forgotten: two replicas do not wait for each other.
  EXECUTE format('GRANT INSERT, UPDATE, DELETE ON mayfly.dpop_proofs TO %I', runtime);
END $$;
REVOKE EXECUTE ON FUNCTION mayfly.grant_rights(name, name) FROM PUBLIC;
