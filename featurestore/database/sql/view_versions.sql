-- Every version that was ever registered, oldest first.
SELECT
    target, "view", version, digest, source, entity, columns, features, active, may_activate,
    dropped_at IS NOT NULL AS dropped
FROM view_versions
ORDER BY registered_at, target
