-- The sums of each registered target's ledger lines.
SELECT
    known.target,
    count(batch_id) AS batches,
    coalesce(sum(rows_in), 0) AS rows_in,
    coalesce(sum(logged), 0) AS logged,
    coalesce(sum(filtered), 0) AS filtered,
    coalesce(sum(quarantined), 0) AS quarantined,
    coalesce(sum(erased), 0) AS erased,
    max(applied_at) AS newest_applied_at
FROM view_versions AS known
LEFT JOIN applied ON applied.target = known.target
GROUP BY known.target
ORDER BY known.target
