"""What the step of a source's landed files does: closed hours become one file each, what is too old goes."""

from contextlib import nullcontext
from dataclasses import asdict
from datetime import UTC, datetime

import dagster as dg

from featurestore.definitions.project import Project
from featurestore.definitions.source import Source
from featurestore.errors import FeatureStoreError
from featurestore.landing.batch import Batch
from featurestore.landing.pending import Cause, find_pending
from featurestore.landing.retention import tend
from featurestore.offline.lake import first_outside
from featurestore_dagster.backlog import Backlog
from featurestore_dagster.names import Keys
from featurestore_dagster.resources import Given
from featurestore_dagster.runs import failure


def tend_source(
    context: dg.AssetExecutionContext, project: Project, source: Source, keys: Keys
) -> dg.MaterializeResult:
    """Compact and remove, as far as every view of the source has the rows."""
    targets = [view.target for view in project.feature_views if view.source.name == source.name]
    given = Given(context, keys)
    landing, database = given.landing, given.database
    try:
        backlog = Backlog()
        ledger = backlog.ledger(project, database)

        now = datetime.now(UTC)
        outside = {target: first_outside(database, target) for target in targets} if source.keep else {}

        def is_applied(batch: Batch) -> bool:
            return not find_pending([batch], backlog.targets(), ledger.rows, ())

        def is_in_lake(batch: Batch) -> bool:
            rows = ((ledger.rows.get((batch.batch_id, target)), first) for target, first in outside.items())
            return is_applied(batch) and not any(row and first and row.commit_seq >= first for row, first in rows)

        with landing.erasures.alone() if landing.erasures else nullcontext():
            done = tend(landing, source, now, is_applied=is_applied, is_in_lake=is_in_lake)
    except FeatureStoreError as error:
        raise failure(error, Cause.INFRASTRUCTURE) from error
    return dg.MaterializeResult(metadata={name: dg.MetadataValue.int(count) for name, count in asdict(done).items()})
