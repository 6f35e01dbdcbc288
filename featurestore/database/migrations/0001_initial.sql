-- The database of a feature store, empty. Log tables are made from views, by schema jobs.
CREATE SCHEMA log;

-- What has not moved to the lake yet: a table per log, which the view log.<name> reads together with the lake's files.
CREATE SCHEMA hot;

-- One row: which database this is (another one after a rebuild or restore), and the format of its tables.
CREATE TABLE store_info (
    epoch VARCHAR NOT NULL,
    format INTEGER NOT NULL,
    created_at TIMESTAMP NOT NULL
);

-- The ledger: what became of each landed batch, per view version. Never pruned: it is what makes a resend harmless.
-- batch_hash = md5_number_lower(batch_id): finding a pair costs a scan of numbers, not of long texts.
CREATE TABLE applied (
    batch_id VARCHAR NOT NULL,
    target VARCHAR NOT NULL,
    commit_seq BIGINT NOT NULL,
    rows_in BIGINT NOT NULL,
    logged BIGINT NOT NULL,
    filtered BIGINT NOT NULL,
    quarantined BIGINT NOT NULL,
    applied_at TIMESTAMP NOT NULL,
    batch_hash UBIGINT NOT NULL
);

-- Rows that failed an expectation, as JSON text.
CREATE TABLE quarantined_rows (
    batch_id VARCHAR NOT NULL,
    target VARCHAR NOT NULL,
    sequence BIGINT NOT NULL,
    event_timestamp TIMESTAMP,
    reason VARCHAR NOT NULL,
    "row" VARCHAR
);

-- Every version of every view that was ever registered. `columns` and `features` are JSON. The active one is what
-- readers that name no version get: chosen at `activated_seq`, a commit_seq, so that mirrors can tell which choice is the
-- later one. `may_activate`: by itself, once, when it is complete. A dropped version has no log any more.
CREATE TABLE view_versions (
    target VARCHAR NOT NULL,
    "view" VARCHAR NOT NULL,
    version INTEGER NOT NULL,
    digest VARCHAR NOT NULL,
    source VARCHAR NOT NULL,
    entity VARCHAR NOT NULL,
    columns VARCHAR NOT NULL,
    features VARCHAR NOT NULL,
    registered_at TIMESTAMP NOT NULL,
    active BOOLEAN NOT NULL,
    activated_seq BIGINT NOT NULL,
    may_activate BOOLEAN NOT NULL,
    dropped_at TIMESTAMP
);

-- The files of the lake (names below its directory): rows that left `hot`, and what else of them a rebuild needs.
CREATE TABLE lake_files (
    name VARCHAR NOT NULL,
    target VARCHAR NOT NULL,
    kind VARCHAR NOT NULL,
    landing_day DATE NOT NULL,
    bucket INTEGER NOT NULL,
    buckets INTEGER NOT NULL,
    row_count BIGINT NOT NULL,
    size_bytes BIGINT NOT NULL,
    digest VARCHAR NOT NULL,
    moved_at TIMESTAMP NOT NULL
);

-- What was ever said about models; expected_features, view_versions and receipt are JSON.
CREATE TABLE model_metadata_log (
    commit_seq BIGINT NOT NULL,
    model_id VARCHAR NOT NULL,
    artifact_type VARCHAR NOT NULL,
    version VARCHAR NOT NULL,
    trained_date VARCHAR,
    status VARCHAR NOT NULL,
    azure_location VARCHAR,
    expected_features VARCHAR,
    view_versions VARCHAR,
    sha256 VARCHAR,
    size_bytes BIGINT,
    format VARCHAR,
    etag VARCHAR,
    actor VARCHAR,
    receipt VARCHAR,
    recorded_at TIMESTAMP NOT NULL
);

-- The current state: the newest word about each version of each artifact. Several versions of a model may have been
-- promoted to production one after another; the last of them is the one that counts, with all its artifacts.
CREATE VIEW model_metadata AS
SELECT
    * EXCLUDE (commit_seq),
    status = 'production' AND row(recorded_at, commit_seq) = max(
        CASE WHEN status = 'production' THEN row(recorded_at, commit_seq) END
    ) OVER (PARTITION BY model_id) AS promoted
FROM (
    SELECT *
    FROM model_metadata_log
    QUALIFY row_number() OVER (
        PARTITION BY model_id, artifact_type, version ORDER BY recorded_at DESC, commit_seq DESC
    ) = 1
);
