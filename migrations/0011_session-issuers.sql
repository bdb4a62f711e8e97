-- Up Migration
-- A session counts for the issuer that gave it: a source of the same name may be another one tomorrow. Those from before name none, and end.
ALTER TABLE mayfly.operator_sessions ADD COLUMN issuer text;
