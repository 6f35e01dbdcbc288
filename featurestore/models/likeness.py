"""Are today's values like those that a model was trained on? Compares with the statistics in the receipt."""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, cast

from featurestore.database.client import Database
from featurestore.definitions.project import Project
from featurestore.definitions.view import FeatureView
from featurestore.models.metadata import ModelVersion
from featurestore.offline.relations import log_relation
from featurestore.order import ORDER_SQL

FAR = 0.25  # of the Kolmogorov-Smirnov distance, and of the difference between shares of NULL
FEWEST = 100  # entities, below which nothing can be said
RECENT = timedelta(days=7)  # entities that had rows within


def unlike_training(version: ModelVersion, project: Project, database: Database) -> list[str]:
    """The row features whose newest values lie far from the training set's, and how far.

    The distance is the largest difference between the two distributions at the quantiles of the receipt. Windows and
    derived features are not compared: what they were at the training set's times is not what they are now.

    Raises as Database.query does.
    """
    return list(_differences(version.receipt.get("statistics", {}), version, project, database))


def _differences(
    statistics: Mapping[str, Any], version: ModelVersion, project: Project, database: Database
) -> Iterator[str]:
    for name, number in version.view_versions.items():
        view = project.view(name, number)
        if not isinstance(view, FeatureView):
            continue
        stored = {feature.name for feature in view.row_features}
        for expected in version.expected_features:
            quantiles = statistics.get(expected.name, {}).get("quantiles")
            if quantiles and expected.name in stored:
                yield from _difference(view, expected.name, statistics[expected.name], database)


def _difference(view: FeatureView, name: str, trained: Mapping[str, Any], database: Database) -> Iterator[str]:
    levels = {float(level): value for level, value in trained["quantiles"].items() if value is not None}
    shares = ", ".join(
        f"avg(CAST(v <= $q{i} AS INTEGER)) AS up_to_{i}, avg(CAST(v < $q{i} AS INTEGER)) AS below_{i}"
        for i in range(len(levels))
    )
    newest = (
        f'SELECT CAST("{name}" AS DOUBLE) AS v FROM {log_relation(view)} WHERE created_at >= $since '
        f"QUALIFY row_number() OVER (PARTITION BY entity_id ORDER BY {ORDER_SQL} DESC) = 1"
    )
    given = {f"q{i}": float(value) for i, value in enumerate(levels.values())}
    since = datetime.now(UTC) - RECENT
    sql = f"SELECT count(*) AS entities, count(v) AS known, {shares} FROM ({newest})"
    now = cast("dict[str, Any]", database.query_arrow(sql, {**given, "since": since}).to_pylist()[0])
    if now["known"] < FEWEST:
        return
    gaps = [max(level - now[f"up_to_{i}"], now[f"below_{i}"] - level) for i, level in enumerate(levels)]
    if max(gaps) > FAR:
        yield f"{name}: its newest values are at a distance of {max(gaps):.2f} from those of the training set"
    nulls, trained_nulls = 1 - now["known"] / now["entities"], trained["nulls"] / (trained["count"] + trained["nulls"])
    if abs(nulls - trained_nulls) > FAR:
        yield f"{name}: {nulls:.0%} of its newest values are NULL; in the training set it were {trained_nulls:.0%}"
