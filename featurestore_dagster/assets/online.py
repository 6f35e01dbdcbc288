"""The online store, filled again from the log."""

from collections.abc import Mapping
from datetime import UTC, datetime

import dagster as dg
from pydantic import Field

from featurestore.definitions.project import Project
from featurestore.entity_id import Piece
from featurestore.errors import FeatureStoreError
from featurestore.landing.pending import Cause
from featurestore.recovery.online import PIECES, Refilled, refill
from featurestore_dagster.names import DATABASE_POOL, ONLINE, PLAIN, Keys
from featurestore_dagster.partitions import SINGLE_RUN, beta_features
from featurestore_dagster.resources import Given
from featurestore_dagster.runs import failure

REBUILD_TAG = "featurestore/rebuild"
ENTITY_PIECES = dg.StaticPartitionsDefinition([f"{number:02d}" for number in range(PIECES)])


class Rebuild(dg.Config):
    """Which views are filled again; by default all that have online features."""

    views: list[str] = Field(default=[], description="Names of views; empty: all.")


def rebuild_key(keys: Keys = PLAIN) -> dg.AssetKey:
    return keys.online("rebuild")


def online_rebuild(project: Project, keys: Keys = PLAIN) -> dg.AssetsDefinition:
    """Makes the online store equal to the log: for a Redis that was lost or replaced, or a log that was restored."""
    views = [view for view in project.feature_views if view.online_features]

    with beta_features():

        @dg.asset(
            key=rebuild_key(keys),
            deps=[
                dg.AssetDep(key, partition_mapping=dg.AllPartitionMapping())
                for key in dict.fromkeys(keys.features(view.name) for view in views)
            ],
            partitions_def=ENTITY_PIECES,
            backfill_policy=SINGLE_RUN,
            group_name=ONLINE,
            kinds={"redis"},
            description=(
                f"Newest rows and windows of every entity, pushed from the log in {PIECES} pieces; what the log does "
                "not have is taken away. Needs no flush, and is harmless at any time."
            ),
            required_resource_keys=keys.resources("database", "online"),
            pool=DATABASE_POOL,
        )
        def rebuild(context: dg.AssetExecutionContext, config: Rebuild) -> dg.MaterializeResult:
            given = Given(context, keys)
            chosen = [view for view in views if not config.views or view.name in config.views]
            done = {view.target: Refilled() for view in chosen}
            try:
                for key in context.partition_keys:
                    for view in chosen:
                        piece = Piece(int(key), PIECES)
                        done[view.target] += refill(view, piece, given.database, given.online, now=datetime.now(UTC))
                    context.log.info("piece %s of %d is filled", key, PIECES)
            except FeatureStoreError as error:
                raise failure(error, Cause.INFRASTRUCTURE) from error
            return dg.MaterializeResult(metadata=_metadata(done))

    return rebuild


def _metadata(done: Mapping[str, Refilled]) -> dict[str, dg.MetadataValue]:
    return {
        f"{target} {what}": dg.MetadataValue.int(number)
        for target, one in done.items()
        for what, number in (
            ("written", one.put.written),
            ("newer already", one.put.stale),
            ("tiles", one.put.tiles),
            ("not in the log", one.removed),
        )
    }
