-- The ledger lines after $last, oldest first, each with the database's epoch and how often it had rows erased; one row
-- without a line when there are none.
SELECT store_info.epoch, (SELECT count(*) FROM erasures) AS erasures, news.*
FROM store_info
LEFT JOIN (
    SELECT batch_id, target, commit_seq, rows_in, logged, filtered, quarantined, erased, applied_at
    FROM applied
    WHERE commit_seq > $last
    ORDER BY commit_seq
    LIMIT $page
) AS news ON true
ORDER BY news.commit_seq
