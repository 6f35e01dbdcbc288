-- Per model that was ever promoted: the version in production ('' if all of them were retired), the ETag of the metadata
-- file that says so, and the commit_seq of the last word about the model, which orders what is published.
WITH words AS (
    SELECT model_id, version, status, etag, recorded_at, max(commit_seq) AS commit_seq
    FROM model_metadata_log
    GROUP BY ALL
), last_words AS (  -- about each version
    SELECT * FROM words
    QUALIFY row_number() OVER (PARTITION BY model_id, version ORDER BY recorded_at DESC, commit_seq DESC) = 1
), in_production AS (
    SELECT * FROM last_words
    WHERE status = 'production'
    QUALIFY row_number() OVER (PARTITION BY model_id ORDER BY recorded_at DESC, commit_seq DESC) = 1
), models AS (
    SELECT model_id, max(commit_seq) AS generation FROM words WHERE status <> 'staging' GROUP BY model_id
)
SELECT models.model_id, coalesce(version, '') AS version, coalesce(etag, '') AS etag, generation
FROM models LEFT JOIN in_production USING (model_id)
ORDER BY models.model_id
