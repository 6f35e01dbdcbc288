-- Of the rows of a batch, those that were erased: rows_in = logged + filtered + quarantined + erased.
ALTER TABLE applied ADD COLUMN erased BIGINT DEFAULT 0;

-- Each erasure that took rows away here; whose they were is known outside alone, by a keyed hash.
CREATE TABLE erasures (
    erased_at TIMESTAMP NOT NULL,
    entity VARCHAR NOT NULL,
    "rows" BIGINT NOT NULL
);

-- The landed rows that were erased: whoever had read them before still sends what was made of them.
CREATE TABLE erased_rows (
    batch_id VARCHAR NOT NULL,
    sequence BIGINT NOT NULL
);

-- Those of them that files of the lake hold still: no reader sees them.
CREATE TABLE hidden_rows (
    target VARCHAR NOT NULL,
    commit_seq BIGINT NOT NULL,
    sequence BIGINT NOT NULL
);
