-- How many batches the ledger has of the active version of the view and not of this one.
SELECT count(*)
FROM applied AS known
JOIN view_versions AS active ON active.target = known.target AND active.active AND active."view" = $view
WHERE NOT EXISTS (
    SELECT 1 FROM applied AS own
    WHERE own.target = $target AND own.batch_hash = known.batch_hash AND own.batch_id = known.batch_id
)
