-- Register a version, or take over what may change within one (which features are online).
-- The first version that is registered of a view is active; a later one may become so by itself, once.
MERGE INTO view_versions AS known
USING (
    SELECT $target AS target, EXISTS (SELECT 1 FROM view_versions AS other WHERE other."view" = $view) AS is_later
) AS wanted
ON known.target = wanted.target
WHEN MATCHED AND known.features <> $features THEN UPDATE SET features = $features
WHEN NOT MATCHED THEN INSERT VALUES (
    $target, $view, $version, $digest, $source, $entity, $columns, $features, $now,
    NOT is_later, 0, is_later, NULL
)
