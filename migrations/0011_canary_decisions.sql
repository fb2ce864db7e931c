-- Decisions that the canary of a model steps back, or goes on.
ALTER TABLE decision DROP CONSTRAINT decision_kind_check;
ALTER TABLE decision ADD CONSTRAINT decision_kind_check
    CHECK (kind IN ('weights', 'membership', 'replicas', 'shed', 'canary'));
