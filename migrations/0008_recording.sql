CREATE TABLE input_page (
    run uuid NOT NULL,
    sequence bigint NOT NULL,
    at timestamptz NOT NULL,
    page json NOT NULL,
    PRIMARY KEY (run, sequence, at)
) PARTITION BY RANGE (at);
COMMENT ON TABLE input_page IS
    'In which order a controller took its inputs, a row per tick, a partition per UTC day. Samples are only named; their values are in backend_sample.';
COMMENT ON COLUMN input_page.run IS 'One life of a process.';
CREATE INDEX input_page_at ON input_page (at);

CREATE TABLE checkpoint (
    run uuid NOT NULL,
    sequence bigint NOT NULL,
    at timestamptz NOT NULL,
    core bytea NOT NULL,
    pending bytea NOT NULL,
    learner bytea NOT NULL,
    PRIMARY KEY (run, sequence, at)
) PARTITION BY RANGE (at);
COMMENT ON TABLE checkpoint IS
    'All that decisions depend on after a page of inputs, so that what follows can be replayed: JSON, packed by gzip; a partition per UTC day.';
CREATE INDEX checkpoint_at ON checkpoint (at);
