-- Up Migration
-- Budgets: how many tasks of one issuer are alive.

CREATE INDEX tasks_alive_of_issuer ON mayfly.tasks (issuer) WHERE state IN ('offered', 'active', 'suspended');
