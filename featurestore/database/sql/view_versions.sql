-- The view versions, oldest first.
SELECT target, "view", version, digest, source, entity, columns, features, active
FROM view_versions
ORDER BY registered_at, target
