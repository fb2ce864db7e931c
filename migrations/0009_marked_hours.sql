-- Whoever writes minutes marks their hour: also a version from before there were hours, which runs beside this one or comes back.
CREATE FUNCTION mark_hours() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO dirty_hour (hour, minutes)
    SELECT date_trunc('hour', minute, 'UTC') AS hour, count(DISTINCT minute) FROM written GROUP BY 1 ORDER BY 1
    ON CONFLICT (hour) DO UPDATE SET minutes = dirty_hour.minutes + excluded.minutes;
    RETURN NULL;
END
$$;
CREATE TRIGGER mark_hours AFTER INSERT ON backend_minute
REFERENCING NEW TABLE AS written FOR EACH STATEMENT EXECUTE FUNCTION mark_hours();

-- Hours that such a version left out.
INSERT INTO dirty_hour (hour, minutes)
SELECT hour, 0 FROM generate_series(
    date_trunc('hour', (SELECT min(minute) FROM backend_minute), 'UTC'),
    (SELECT max(minute) FROM backend_minute),
    interval '1 hour'
) AS known(hour)
WHERE NOT EXISTS (SELECT FROM group_hour g WHERE g.hour = known.hour)
ON CONFLICT (hour) DO NOTHING;
