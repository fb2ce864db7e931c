-- Decisions about what is refused in overload.
ALTER TABLE decision DROP CONSTRAINT decision_kind_check;
ALTER TABLE decision ADD CONSTRAINT decision_kind_check CHECK (kind IN ('weights', 'membership', 'replicas', 'shed'));
