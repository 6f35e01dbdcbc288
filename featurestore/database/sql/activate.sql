-- Make a version the active one of its view. What was there when a person chose does not become active by itself any
-- more; when a version becomes so by itself, that goes for the earlier ones.
UPDATE view_versions
SET
    active = version = $version,
    activated_seq = CASE WHEN version = $version THEN $commit_seq ELSE activated_seq END,
    may_activate = may_activate AND NOT $by_hand AND version > $version
WHERE "view" = $view
