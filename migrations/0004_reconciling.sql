-- Up Migration
-- What the reconciler keeps. Nothing of it is on the issuing path but the index.

-- A credential that was gone and is in the target again (a restored backup, a promoted replica) is owed its end once more.
INSERT INTO mayfly.transitions VALUES ('grant', 'revoked', 'revoking'), ('revocation', 'clean', 'due');

-- One row per target: when it is looked at next, and by whom now. A run that fell silent is taken over when its claim ends.
CREATE TABLE mayfly.reconciliations (
  target        text PRIMARY KEY,
  next_at       timestamptz NOT NULL,
  -- Asked for by a person: such a run is waited for.
  asked_at      timestamptz,
  claim_number  bigint,
  claimed_by    text,
  claimed_until timestamptz,
  started_at    timestamptz,
  finished_at   timestamptz,
  result        jsonb
);

-- What bears our mark and is unknown here, since when. Ended only once it is older than any mint in flight.
CREATE TABLE mayfly.orphan_sightings (
  target        text NOT NULL,
  handle        text NOT NULL,
  first_seen_at timestamptz NOT NULL,
  PRIMARY KEY (target, handle)
);

-- What was last told of a living grant, so that it is told once.
CREATE TABLE mayfly.grant_sightings (
  grant_id   uuid PRIMARY KEY REFERENCES mayfly.grants,
  lost_at    timestamptz,
  drift      text[] NOT NULL DEFAULT '{}',
  -- Begin of the youngest session that was seen.
  used_since timestamptz
);

-- Our times as the holder of a target. The store's `beat` is raised and committed before the target's: so the store never knows
-- less than the target shows, unless it is a copy from before, or lost its last moments.
CREATE TABLE mayfly.tenures (
  tenure  uuid PRIMARY KEY,
  target  text NOT NULL,
  beat    bigint NOT NULL,
  beat_at timestamptz NOT NULL,
  -- Another store was seen to go on with it: ours no more, until `mayfly target adopt` begins a new one.
  lost_at timestamptz
);

-- To compare a page of a target's list with what lives here. Handles in the order of their bytes, as providers list them.
CREATE INDEX grants_alive_of_target ON mayfly.grants (target, handle COLLATE "C") WHERE state = 'active';

ALTER FUNCTION mayfly.grant_rights(name, name) RENAME TO grant_rights_before_reconciling;
CREATE FUNCTION mayfly.grant_rights(runtime name, sequencer name) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  PERFORM mayfly.grant_rights_before_reconciling(runtime, sequencer);
  EXECUTE format('GRANT INSERT, UPDATE ON mayfly.reconciliations, mayfly.orphan_sightings, mayfly.grant_sightings, mayfly.tenures TO %I', runtime);
  EXECUTE format('GRANT DELETE ON mayfly.orphan_sightings TO %I', runtime);
END $$;
REVOKE EXECUTE ON FUNCTION mayfly.grant_rights(name, name) FROM PUBLIC;
