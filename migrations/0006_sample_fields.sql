-- What engines tell since their histograms and steps are read. The version before goes on writing without these
-- columns: they are null, or 0 for counts, as where an engine does not tell. Constant defaults rewrite no table.
SET LOCAL lock_timeout = '5s';

ALTER TABLE backend_sample
    ADD COLUMN kv_used_max real,
    ADD COLUMN ttft_p50_seconds real,
    ADD COLUMN ttft_p95_seconds real,
    ADD COLUMN inter_token_p95_seconds real,
    ADD COLUMN queue_wait_seconds real,
    ADD COLUMN iterations real NOT NULL DEFAULT 0,
    ADD COLUMN iteration_tokens real NOT NULL DEFAULT 0,
    ADD COLUMN preempted real NOT NULL DEFAULT 0;
COMMENT ON COLUMN backend_sample.kv_used_max IS 'Part of the KV cache in use in the fullest data-parallel engine, 0 to 1.';
COMMENT ON COLUMN backend_sample.queue_wait_seconds IS 'Mean wait for a place in the batch of the requests scheduled within the interval.';
COMMENT ON COLUMN backend_sample.iterations IS 'Steps of the engine within the interval; exact up to 16.7 million, as the counts beside it.';

ALTER TABLE backend_minute
    ADD COLUMN ttft_p50_seconds double precision,
    ADD COLUMN ttft_p50_max_seconds double precision,
    ADD COLUMN ttft_p95_seconds double precision,
    ADD COLUMN ttft_p95_max_seconds double precision,
    ADD COLUMN inter_token_p95_seconds double precision,
    ADD COLUMN inter_token_p95_max_seconds double precision,
    ADD COLUMN queue_wait_seconds double precision,
    ADD COLUMN iterations double precision NOT NULL DEFAULT 0,
    ADD COLUMN iteration_tokens double precision NOT NULL DEFAULT 0,
    ADD COLUMN preempted double precision NOT NULL DEFAULT 0;
COMMENT ON COLUMN backend_minute.kv_used_max IS 'Of kv_used_max where the engine tells it, else of kv_used.';
COMMENT ON COLUMN backend_minute.ttft_p50_seconds IS
    'Mean of the samples'' medians, weighted by the requests of each. No true median of the minute: quantiles cannot be added up.';
COMMENT ON COLUMN backend_minute.ttft_p95_seconds IS 'As ttft_p50_seconds: the weighted mean of the samples'' 95th percentiles.';
COMMENT ON COLUMN backend_minute.ttft_p95_max_seconds IS 'The largest 95th percentile of a sample: the true one of the minute is not above it.';
COMMENT ON COLUMN backend_minute.inter_token_p95_seconds IS 'As ttft_p95_seconds, weighted by output tokens.';
COMMENT ON COLUMN backend_minute.queue_wait_seconds IS 'Mean weighted by the requests that got their first token, as those scheduled are not counted.';
