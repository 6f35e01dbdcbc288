-- Take what a view's log has of the rows of `erasing` away; rows in files of the lake are hidden instead.
CREATE OR REPLACE TEMP TABLE gone AS
SELECT line.batch_id, logged.commit_seq, logged.sequence
FROM {log} AS logged
JOIN applied AS line ON line.target = '{target}' AND line.commit_seq = logged.commit_seq
SEMI JOIN erasing ON erasing.batch_id = line.batch_id AND erasing.sequence = logged.sequence;

CREATE OR REPLACE TEMP TABLE held_gone AS
SELECT held.batch_id, held.sequence
FROM quarantined_rows AS held
SEMI JOIN erasing USING (batch_id, sequence)
WHERE held.target = '{target}';

INSERT INTO hidden_rows
SELECT '{target}', commit_seq, sequence FROM gone ANTI JOIN {hot} USING (commit_seq, sequence);

DELETE FROM {hot} AS logged USING gone
WHERE logged.commit_seq = gone.commit_seq AND logged.sequence = gone.sequence;

DELETE FROM quarantined_rows AS held USING held_gone
WHERE held.target = '{target}' AND held.batch_id = held_gone.batch_id AND held.sequence = held_gone.sequence;

UPDATE applied AS line
SET
    logged = logged - counted.from_log,
    quarantined = quarantined - counted.from_quarantine,
    erased = erased + counted.from_log + counted.from_quarantine
FROM (
    SELECT batch_id, count(*) FILTER (is_logged) AS from_log, count(*) FILTER (NOT is_logged) AS from_quarantine
    FROM (
        SELECT batch_id, true AS is_logged FROM gone
        UNION ALL
        SELECT batch_id, false AS is_logged FROM held_gone
    )
    GROUP BY batch_id
) AS counted
WHERE line.target = '{target}' AND line.batch_id = counted.batch_id;
