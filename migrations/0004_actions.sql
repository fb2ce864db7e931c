CREATE TABLE decision (
    id uuid PRIMARY KEY,
    at timestamptz NOT NULL,
    kind text NOT NULL CHECK (kind IN ('weights', 'membership', 'replicas')),
    model text NOT NULL,
    pool text,
    summary text NOT NULL,
    inputs jsonb NOT NULL,
    changes jsonb NOT NULL
);
COMMENT ON TABLE decision IS 'Every decision that changed something, with what it saw and why each value moved.';
CREATE INDEX decision_at ON decision (at DESC);

CREATE TABLE registered_backend (
    pool text NOT NULL,
    address text NOT NULL,
    state text NOT NULL CHECK (state IN ('ready', 'draining')),
    registered_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    PRIMARY KEY (pool, address)
);
COMMENT ON TABLE registered_backend IS 'Backends that joined a pool through the API, besides those of the configuration.';

CREATE TABLE event (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at timestamptz NOT NULL,
    level text NOT NULL CHECK (level IN ('info', 'warning', 'error')),
    message text NOT NULL
);
COMMENT ON TABLE event IS 'What an operator should know about Clairvoy itself: fallbacks, refusals, recoveries.';
CREATE INDEX event_at ON event (at DESC);
