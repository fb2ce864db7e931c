-- Whether Envoys took what was decided.
CREATE TABLE acknowledgement (
    decision_id uuid PRIMARY KEY,
    published_at timestamptz NOT NULL,
    envoys integer NOT NULL,
    accepted integer NOT NULL,
    refused integer NOT NULL,
    gone integer NOT NULL,
    first_seconds double precision,
    last_seconds double precision,
    refusals jsonb NOT NULL
);
COMMENT ON TABLE acknowledgement IS
    'What the Envoys said to the endpoints that were published with a decision about shares: a row for each, written once when all have answered, or after 10 s.';
COMMENT ON COLUMN acknowledgement.decision_id IS 'No reference: the decision may have been dropped, or come later.';
COMMENT ON COLUMN acknowledgement.envoys IS 'Envoys that were to be told. Those neither counted as accepted, refused nor gone did not answer, or were sent something newer first.';
COMMENT ON COLUMN acknowledgement.gone IS 'Disconnected, or brought into another group, before they answered.';
COMMENT ON COLUMN acknowledgement.first_seconds IS 'From publishing until the first ACK.';
COMMENT ON COLUMN acknowledgement.refusals IS 'Of the first eight that refused: the node and its reason.';
CREATE INDEX acknowledgement_published_at ON acknowledgement (published_at);
