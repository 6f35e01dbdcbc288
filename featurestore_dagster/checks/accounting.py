"""Every landed row is, for each view of its source, logged, filtered, quarantined or erased, exactly once."""

from collections.abc import Sequence
from dataclasses import dataclass

from featurestore.definitions.project import Project
from featurestore.definitions.view import FeatureView
from featurestore.offline.relations import log_relation
from featurestore_dagster.checks.scope import Check, Finding, Scope, versions_by_name
from featurestore_dagster.names import PLAIN, Keys

_SINCE = "created_at >= make_timestamp($since) AND commit_seq <= $last"
_OF_BATCHES = "commit_seq IN (SELECT unnest($commits))"  # where rows bring their own created_at


@dataclass(frozen=True, slots=True)
class _Logged:
    rows: int


def accounting(project: Project, keys: Keys = PLAIN) -> list[Check]:
    return [
        Check(
            name="accounting",
            key=keys.features(name),
            description="Landed = logged + filtered + quarantined + erased; the log has what the ledger counts.",
            advice="Rows were lost or written twice: keep the landing zone as it is and compare `applied` with it.",
            versions=versions,
            examine=examine,
        )
        for name, versions in versions_by_name(project.feature_views).items()
    ]


def examine(view: FeatureView, scope: Scope) -> Finding:
    """Compare footers with the ledger, batch by batch, and the ledger with the log, as a whole."""
    wrong: list[str] = []
    landed = logged = filtered = quarantined = erased = 0
    commits: list[int] = []
    for batch in scope.batches(view):
        row = scope.ledger.rows.get((batch.batch_id, view.target))
        if row is None:
            continue  # `completeness` watches these
        commits.append(row.commit_seq)
        landed, logged = landed + batch.rows, logged + row.logged
        filtered, quarantined, erased = filtered + row.filtered, quarantined + row.quarantined, erased + row.erased
        if not batch.rows == row.rows_in == row.logged + row.filtered + row.quarantined + row.erased:
            wrong.append(
                f"{batch.batch_id} landed with {batch.rows} rows; the ledger says {row.rows_in} = "
                f"{row.logged} logged + {row.filtered} filtered + {row.quarantined} quarantined + {row.erased} erased"
            )
    in_log = _rows_in_log(view, scope, commits)
    if in_log != logged:
        wrong.append(f"the log has {in_log} rows since {scope.since:%Y-%m-%d %H:%M}, the ledger {logged}")
    counts = {"landed": landed, "logged": logged, "filtered": filtered, "quarantined": quarantined, "erased": erased}
    return Finding(tuple(wrong[:5]), counts)


def _rows_in_log(view: FeatureView, scope: Scope, commits: Sequence[int]) -> int:
    lines = scope.ledger.lines(view.target)
    if not lines:
        return 0
    if view.source.created_at:
        which, params = _OF_BATCHES, {"commits": list(commits)}
    else:
        which, params = _SINCE, {"since": scope.since_micros, "last": lines[-1].commit_seq}
    sql = f"SELECT count(*) AS rows FROM {log_relation(view)} WHERE {which}"
    [logged] = scope.database.query(sql, params, into=_Logged)
    return logged.rows
