CREATE TABLE backend (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    address text NOT NULL UNIQUE,
    pool text,
    model text,
    last_seen_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE backend IS
    'Every backend that telemetry or configuration ever named, under the small number that samples carry.';
COMMENT ON COLUMN backend.pool IS 'Null while only telemetry knows the backend.';
COMMENT ON COLUMN backend.last_seen_at IS 'Newest minute with a sample, exact to an hour; rows unseen for the retention of backend_minute go.';

CREATE TABLE backend_sample (
    at timestamptz NOT NULL,
    backend_id integer NOT NULL,
    interval_seconds real NOT NULL,
    queue_depth real,
    running real,
    kv_used real,
    gpu_utilisation real,
    ttft_seconds real,
    ttft_count double precision NOT NULL,
    inter_token_seconds real,
    arrived double precision NOT NULL,
    completed double precision NOT NULL,
    prompt_tokens double precision NOT NULL,
    output_tokens double precision NOT NULL,
    simulated boolean NOT NULL
) PARTITION BY RANGE (at);
COMMENT ON TABLE backend_sample IS
    'Raw telemetry, one row per backend and second, a partition per UTC day. No foreign key: it would be checked for each row.';
COMMENT ON COLUMN backend_sample.interval_seconds IS 'Time that the counts and means cover; 0 for the first sample of a backend.';
COMMENT ON COLUMN backend_sample.kv_used IS 'Part of the KV cache in use, 0 to 1.';
COMMENT ON COLUMN backend_sample.gpu_utilisation IS '0 to 1.';
COMMENT ON COLUMN backend_sample.ttft_seconds IS 'Mean time to first token over ttft_count requests.';
-- Rows arrive in the order of time, so a block range index answers time windows and costs COPY next to nothing.
CREATE INDEX backend_sample_at ON backend_sample USING brin (at) WITH (pages_per_range = 32, autosummarize = on);

CREATE TABLE backend_minute (
    minute timestamptz NOT NULL,
    backend_id integer NOT NULL,
    samples integer NOT NULL,
    covered_seconds double precision NOT NULL,
    queue_depth_mean double precision,
    queue_depth_max double precision,
    running_mean double precision,
    running_max double precision,
    kv_used_mean double precision,
    kv_used_max double precision,
    gpu_utilisation_mean double precision,
    gpu_utilisation_max double precision,
    ttft_seconds double precision,
    ttft_count double precision NOT NULL,
    inter_token_seconds double precision,
    arrived double precision NOT NULL,
    completed double precision NOT NULL,
    prompt_tokens double precision NOT NULL,
    output_tokens double precision NOT NULL,
    PRIMARY KEY (minute, backend_id)
) PARTITION BY RANGE (minute);
COMMENT ON TABLE backend_minute IS
    'backend_sample by minute and backend, a partition per UTC day. Always recomputed from all samples of the minute.';
COMMENT ON COLUMN backend_minute.covered_seconds IS 'Sum of interval_seconds of the samples: what rates are to be divided by.';
COMMENT ON COLUMN backend_minute.ttft_seconds IS 'Mean weighted by the requests that got their first token.';
COMMENT ON COLUMN backend_minute.inter_token_seconds IS 'Mean weighted by output tokens.';

CREATE TABLE dirty_minute (
    minute timestamptz PRIMARY KEY,
    rows bigint NOT NULL
);
COMMENT ON TABLE dirty_minute IS
    'Minutes that got samples since they were last rolled up. Each batch of samples marks its minutes in its own transaction, so late rows are never missed.';

CREATE TABLE ingest_mark (
    writer uuid PRIMARY KEY,
    batch bigint NOT NULL,
    rows numeric NOT NULL,
    updated_at timestamptz NOT NULL
);
COMMENT ON TABLE ingest_mark IS
    'The newest batch of each telemetry writer, changed in the transaction of the batch: after a lost connection it tells whether the batch was committed. The writer of all zeros holds the rows of writers long gone.';
