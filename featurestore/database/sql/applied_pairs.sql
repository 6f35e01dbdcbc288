-- Which of the (batch_id, target) pairs in `incoming` are in the ledger already, and under which commit_seq.
SELECT known.batch_id, known.target, known.commit_seq
FROM applied AS known
JOIN incoming AS wanted
    ON known.batch_hash = md5_number_lower(wanted.batch_id)
    AND known.batch_id = wanted.batch_id
    AND known.target = wanted.target
