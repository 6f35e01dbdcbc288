-- Every version that was ever registered, with the epoch of the database.
SELECT
    target, "view", version, entity, source, digest, features, registered_at,
    active, activated_seq, may_activate, dropped_at IS NOT NULL AS dropped, epoch
FROM view_versions
CROSS JOIN store_info
ORDER BY "view", version
