-- Up Migration
-- Nonces of ours that proofs of possession must carry, where that is demanded (RFC 9449 §9).

-- Shared by all replicas: the first insert of a minute decides. No history, so that it stays small.
CREATE TABLE mayfly.dpop_nonces (
  -- Since 1970, by the store's clock.
  minute bigint PRIMARY KEY,
  nonce  text NOT NULL
);

ALTER FUNCTION mayfly.grant_rights(name, name) RENAME TO grant_rights_before_nonces;
CREATE FUNCTION mayfly.grant_rights(runtime name, sequencer name) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  PERFORM mayfly.grant_rights_before_nonces(runtime, sequencer);
  EXECUTE format('GRANT INSERT, DELETE ON mayfly.dpop_nonces TO %I', runtime);
END $$;
REVOKE EXECUTE ON FUNCTION mayfly.grant_rights(name, name) FROM PUBLIC;
