-- A far horizon is forecast as the mean of several steps. Rows of before, and those of a version that does not know
-- the column yet, are of one step of the usual length.
ALTER TABLE forecast ADD COLUMN target_seconds integer NOT NULL DEFAULT 60 CHECK (target_seconds > 0);
COMMENT ON COLUMN forecast.target_at IS 'Start of the time that is forecast.';
COMMENT ON COLUMN forecast.target_seconds IS 'Length of the time that is forecast, whose mean rate it is.';
