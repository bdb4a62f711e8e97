-- Up Migration
-- Which living grants are to be decided again: those of an earlier revision, and those that something else moved.

-- The revision under which it was last decided whether the grant stays; null: `decided_revision`. 0: to be decided again, whatever the
-- revision. A column of its own: `decided_revision` tells where the credential was made, also once its target is another one.
ALTER TABLE mayfly.grants ADD COLUMN retained_revision bigint;

-- Numbers of revisions only grow, so what is behind the active one is found as a range, latest deadline first. An apply writes no grant.
CREATE INDEX grants_to_decide ON mayfly.grants ((coalesce(retained_revision, decided_revision)), deadline DESC) WHERE state IN ('minting', 'active');

-- `report`: what it would end by drift is told, and goes on.
ALTER TABLE mayfly.catalog_revisions ADD COLUMN enforce text NOT NULL DEFAULT 'revoke' CHECK (enforce IN ('revoke', 'report'));

ALTER FUNCTION mayfly.grant_rights(name, name) RENAME TO grant_rights_before_drift;
CREATE FUNCTION mayfly.grant_rights(runtime name, sequencer name) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  PERFORM mayfly.grant_rights_before_drift(runtime, sequencer);
  EXECUTE format('GRANT UPDATE (retained_revision) ON mayfly.grants TO %I', runtime);
END $$;
REVOKE EXECUTE ON FUNCTION mayfly.grant_rights(name, name) FROM PUBLIC;
