-- Decisions that were in force at a time, by what they are about: each index has the condition of its query, whatever else
-- was decided meanwhile.
CREATE INDEX decision_model ON decision (model, kind, at DESC, id DESC);
CREATE INDEX decision_shares ON decision (model, at DESC, id DESC)
    WHERE kind IN ('weights', 'membership') AND NOT inputs ? 'part';
CREATE INDEX decision_zones ON decision (model, at DESC, id DESC)
    WHERE kind IN ('weights', 'membership') AND inputs ? 'zones';
CREATE INDEX decision_spare ON decision (model, at DESC, id DESC)
    WHERE kind = 'membership' AND inputs ->> 'part' = 'spare';
