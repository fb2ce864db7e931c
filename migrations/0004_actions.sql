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

CREATE TABLE webhook_outbox (
    id uuid NOT NULL,
    url text NOT NULL,
    body text NOT NULL,
    created_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    attempts integer NOT NULL DEFAULT 0,
    next_attempt_at timestamptz NOT NULL,
    delivered_at timestamptz,
    last_error text,
    PRIMARY KEY (id, url)
);
COMMENT ON TABLE webhook_outbox IS 'Webhooks to be delivered, at least once each, until they expire.';
COMMENT ON COLUMN webhook_outbox.id IS 'The decision that the webhook tells of; receivers see it as webhook-id.';
COMMENT ON COLUMN webhook_outbox.body IS 'Text, not jsonb: every attempt must send the same bytes.';
CREATE INDEX webhook_outbox_due ON webhook_outbox (next_attempt_at) WHERE delivered_at IS NULL;

CREATE TABLE event (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at timestamptz NOT NULL,
    level text NOT NULL CHECK (level IN ('info', 'warning', 'error')),
    message text NOT NULL
);
COMMENT ON TABLE event IS 'What an operator should know about Clairvoy itself: fallbacks, refusals, recoveries.';
CREATE INDEX event_at ON event (at DESC);
