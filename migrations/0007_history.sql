-- Hours of backends, minutes and hours of pools and models: what charts of days and months are drawn from.

-- Minutes of one backend over days. Only roll-ups write this table, and they can wait while the index is built.
CREATE INDEX backend_minute_backend ON backend_minute (backend_id, minute);

CREATE FUNCTION create_month_partition(parent regclass, day date) RETURNS boolean
LANGUAGE plpgsql SET lock_timeout = '2s' AS $$
DECLARE
    parent_name text := (SELECT relname FROM pg_class WHERE oid = parent);
    schema_name text := (SELECT n.nspname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = parent);
    month date := date_trunc('month', day::timestamp)::date;
    partition_name text := parent_name || '_' || to_char(month, 'YYYYMM');
BEGIN
    IF to_regclass(format('%I.%I', schema_name, partition_name)) IS NOT NULL THEN
        RETURN false;
    END IF;
    PERFORM pg_advisory_xact_lock(hashtext('month_partition:' || parent_name));
    IF to_regclass(format('%I.%I', schema_name, partition_name)) IS NOT NULL THEN
        RETURN false;
    END IF;
    EXECUTE format('CREATE TABLE %I.%I (LIKE %s INCLUDING DEFAULTS INCLUDING CONSTRAINTS)', schema_name, partition_name, parent);
    EXECUTE format(
        'ALTER TABLE %s ATTACH PARTITION %I.%I FOR VALUES FROM (%L) TO (%L)',
        parent, schema_name, partition_name,
        month::timestamp AT TIME ZONE 'UTC', (month + interval '1 month')::timestamp AT TIME ZONE 'UTC'
    );
    RETURN true;
END
$$;
COMMENT ON FUNCTION create_month_partition IS
    'Creates the partition of a table for the UTC month of a day; false when it was there. Safe to call from several sessions.';

CREATE FUNCTION drop_month_partitions(parent regclass, before date) RETURNS integer
LANGUAGE plpgsql SET lock_timeout = '2s' AS $$
DECLARE
    parent_name text := (SELECT relname FROM pg_class WHERE oid = parent);
    partition text;
    dropped integer := 0;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('month_partition:' || parent_name));
    FOR partition IN
        SELECT format('%I.%I', n.nspname, c.relname)
        FROM pg_inherits i
        JOIN pg_class c ON c.oid = i.inhrelid
        JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE i.inhparent = parent
          AND c.relname ~ '_[0-9]{6}$'
          AND to_date(right(c.relname, 6), 'YYYYMM') + interval '1 month' <= before
        ORDER BY c.relname
    LOOP
        EXECUTE format('DROP TABLE IF EXISTS %s', partition);
        dropped := dropped + 1;
    END LOOP;
    RETURN dropped;
END
$$;
COMMENT ON FUNCTION drop_month_partitions IS
    'Drops the partitions of a table for UTC months that ended by the given day and returns how many there were.';

CREATE TABLE fleet_group (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind text NOT NULL CHECK (kind IN ('pool', 'model')),
    name text NOT NULL,
    UNIQUE (kind, name)
);
COMMENT ON TABLE fleet_group IS 'Pools and models, under the small numbers that their minutes and hours carry.';

CREATE TABLE backend_hour (
    backend_id integer NOT NULL,
    samples integer NOT NULL,
    hour timestamptz NOT NULL,
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
    ttft_p50_seconds double precision,
    ttft_p50_max_seconds double precision,
    ttft_p95_seconds double precision,
    ttft_p95_max_seconds double precision,
    inter_token_seconds double precision,
    inter_token_p95_seconds double precision,
    inter_token_p95_max_seconds double precision,
    queue_wait_seconds double precision,
    ttft_count double precision NOT NULL,
    arrived double precision NOT NULL,
    completed double precision NOT NULL,
    prompt_tokens double precision NOT NULL,
    output_tokens double precision NOT NULL,
    iterations double precision NOT NULL,
    iteration_tokens double precision NOT NULL,
    preempted double precision NOT NULL,
    PRIMARY KEY (backend_id, hour)
) PARTITION BY RANGE (hour);
COMMENT ON TABLE backend_hour IS
    'backend_minute by hour, a partition per UTC month. Always recomputed from all minutes of the hour. Columns mean what they mean there.';
CREATE INDEX backend_hour_hour ON backend_hour USING brin (hour) WITH (pages_per_range = 16, autosummarize = on);

CREATE TABLE group_minute (
    group_id integer NOT NULL,
    samples integer NOT NULL,
    backends integer NOT NULL,
    minute timestamptz NOT NULL,
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
    ttft_p50_seconds double precision,
    ttft_p50_max_seconds double precision,
    ttft_p95_seconds double precision,
    ttft_p95_max_seconds double precision,
    inter_token_seconds double precision,
    inter_token_p95_seconds double precision,
    inter_token_p95_max_seconds double precision,
    queue_wait_seconds double precision,
    ttft_count double precision NOT NULL,
    arrived double precision NOT NULL,
    completed double precision NOT NULL,
    prompt_tokens double precision NOT NULL,
    output_tokens double precision NOT NULL,
    iterations double precision NOT NULL,
    iteration_tokens double precision NOT NULL,
    preempted double precision NOT NULL,
    PRIMARY KEY (group_id, minute)
) PARTITION BY RANGE (minute);
COMMENT ON TABLE group_minute IS
    'backend_minute by pool and by model, a partition per UTC month, with the pool and model that the backends had when the minute was rolled up.';
COMMENT ON COLUMN group_minute.backends IS 'Backends that sent a sample; of an hour, the most in a minute.';
COMMENT ON COLUMN group_minute.covered_seconds IS 'Of the backend with the best coverage: counts divided by this are rates of the group.';
COMMENT ON COLUMN group_minute.queue_depth_mean IS 'Mean of the group''s total.';
COMMENT ON COLUMN group_minute.queue_depth_max IS 'Of a single backend.';
COMMENT ON COLUMN group_minute.running_mean IS 'Mean of the group''s total.';
COMMENT ON COLUMN group_minute.running_max IS 'Of a single backend.';
CREATE INDEX group_minute_minute ON group_minute USING brin (minute) WITH (pages_per_range = 16, autosummarize = on);

CREATE TABLE group_hour (
    group_id integer NOT NULL,
    samples integer NOT NULL,
    backends integer NOT NULL,
    hour timestamptz NOT NULL,
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
    ttft_p50_seconds double precision,
    ttft_p50_max_seconds double precision,
    ttft_p95_seconds double precision,
    ttft_p95_max_seconds double precision,
    inter_token_seconds double precision,
    inter_token_p95_seconds double precision,
    inter_token_p95_max_seconds double precision,
    queue_wait_seconds double precision,
    ttft_count double precision NOT NULL,
    arrived double precision NOT NULL,
    completed double precision NOT NULL,
    prompt_tokens double precision NOT NULL,
    output_tokens double precision NOT NULL,
    iterations double precision NOT NULL,
    iteration_tokens double precision NOT NULL,
    preempted double precision NOT NULL,
    PRIMARY KEY (group_id, hour)
) PARTITION BY RANGE (hour);
COMMENT ON TABLE group_hour IS 'group_minute by hour, a partition per UTC month.';
CREATE INDEX group_hour_hour ON group_hour USING brin (hour) WITH (pages_per_range = 16, autosummarize = on);

CREATE TABLE dirty_hour (
    hour timestamptz PRIMARY KEY,
    minutes bigint NOT NULL
);
COMMENT ON TABLE dirty_hour IS
    'Hours of which a minute was rolled up since they were last. Marked in the transaction of the minute, so late samples are never missed.';
-- What is there already becomes hours, too. Hours without minutes do no harm, and counting would read all minutes.
INSERT INTO dirty_hour (hour, minutes)
SELECT hour, 0 FROM generate_series(
    date_trunc('hour', (SELECT min(minute) FROM backend_minute), 'UTC'),
    (SELECT max(minute) FROM backend_minute),
    interval '1 hour'
) AS hour;

COMMENT ON COLUMN backend.last_seen_at IS 'Newest minute with a sample, exact to an hour; rows unseen for the retention of backend_hour go.';
