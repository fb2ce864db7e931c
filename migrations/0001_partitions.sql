-- Day partitions, by UTC day, of tables partitioned by range of a timestamp. They are created and dropped by
-- functions, so that the program needs no dynamic SQL and every caller obeys the same lock.

CREATE FUNCTION create_day_partition(parent regclass, day date) RETURNS boolean
LANGUAGE plpgsql SET lock_timeout = '2s' AS $$
DECLARE
    parent_name text := (SELECT relname FROM pg_class WHERE oid = parent);
    schema_name text := (SELECT n.nspname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = parent);
    partition_name text := parent_name || '_' || to_char(day, 'YYYYMMDD');
BEGIN
    IF to_regclass(format('%I.%I', schema_name, partition_name)) IS NOT NULL THEN
        RETURN false;
    END IF;
    PERFORM pg_advisory_xact_lock(hashtext('day_partition:' || parent_name));
    IF to_regclass(format('%I.%I', schema_name, partition_name)) IS NOT NULL THEN
        RETURN false;
    END IF;
    -- Attaching takes a weaker lock on the parent than CREATE TABLE ... PARTITION OF, so writers go on.
    EXECUTE format('CREATE TABLE %I.%I (LIKE %s INCLUDING DEFAULTS INCLUDING CONSTRAINTS)', schema_name, partition_name, parent);
    EXECUTE format(
        'ALTER TABLE %s ATTACH PARTITION %I.%I FOR VALUES FROM (%L) TO (%L)',
        parent, schema_name, partition_name,
        day::timestamp AT TIME ZONE 'UTC', (day + 1)::timestamp AT TIME ZONE 'UTC'
    );
    RETURN true;
END
$$;

COMMENT ON FUNCTION create_day_partition IS
    'Creates the partition of a table for one UTC day; false when it was there. Safe to call from several sessions.';

CREATE FUNCTION drop_day_partitions(parent regclass, before date) RETURNS integer
LANGUAGE plpgsql SET lock_timeout = '2s' AS $$
DECLARE
    parent_name text := (SELECT relname FROM pg_class WHERE oid = parent);
    partition text;
    dropped integer := 0;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('day_partition:' || parent_name));
    FOR partition IN
        SELECT format('%I.%I', n.nspname, c.relname)
        FROM pg_inherits i
        JOIN pg_class c ON c.oid = i.inhrelid
        JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE i.inhparent = parent
          AND c.relname ~ '_[0-9]{8}$'
          AND to_date(right(c.relname, 8), 'YYYYMMDD') < before
        ORDER BY c.relname
    LOOP
        EXECUTE format('DROP TABLE IF EXISTS %s', partition);
        dropped := dropped + 1;
    END LOOP;
    RETURN dropped;
END
$$;

COMMENT ON FUNCTION drop_day_partitions IS
    'Drops the partitions of a table for UTC days before the given one and returns how many there were.';
