CREATE TABLE demand (
    model text NOT NULL,
    step_seconds integer NOT NULL CHECK (step_seconds > 0),
    at timestamptz NOT NULL,
    requests_per_second double precision NOT NULL,
    recorded_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (model, step_seconds, at)
);
COMMENT ON TABLE demand IS 'Requests offered to a model, as the mean rate of each forecast step; measured or imported.';
COMMENT ON COLUMN demand.at IS 'Start of the step.';
COMMENT ON COLUMN demand.recorded_at IS 'When the row came in. Retention counts from here, so that imported history stays.';
CREATE INDEX demand_recorded_at ON demand USING brin (recorded_at);

CREATE TABLE forecast (
    model text NOT NULL,
    issued_at timestamptz NOT NULL,
    horizon_seconds integer NOT NULL CHECK (horizon_seconds > 0),
    target_at timestamptz NOT NULL,
    q10 double precision NOT NULL,
    q50 double precision NOT NULL,
    q90 double precision NOT NULL,
    q95 double precision NOT NULL,
    q99 double precision NOT NULL,
    expert text NOT NULL,
    PRIMARY KEY (model, issued_at, horizon_seconds)
);
COMMENT ON TABLE forecast IS 'Every forecast of demand as it was issued, in requests per second, never changed afterwards.';
COMMENT ON COLUMN forecast.target_at IS 'Start of the step that is forecast.';
COMMENT ON COLUMN forecast.expert IS 'The forecaster that made it.';
-- For "what had been forecast for these steps, so long before".
CREATE INDEX forecast_target ON forecast (model, target_at);
CREATE INDEX forecast_issued_at ON forecast USING brin (issued_at);

CREATE TABLE model_state (
    kind text NOT NULL,
    key text NOT NULL,
    version integer NOT NULL,
    trained_at timestamptz NOT NULL,
    state jsonb NOT NULL,
    PRIMARY KEY (kind, key, version)
);
COMMENT ON TABLE model_state IS 'Trained models and learned values, the newest few versions of each.';
COMMENT ON COLUMN model_state.kind IS 'What sort of state it is, such as a demand model or a wait model.';
COMMENT ON COLUMN model_state.key IS 'What it is about: a model, a pool or a backend.';
