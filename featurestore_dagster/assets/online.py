"""The online store, filled again from the log."""

import dagster as dg
from pydantic import Field

from featurestore.definitions.project import Project
from featurestore_dagster.names import DATABASE_POOL, ONLINE, PLAIN, Keys
from featurestore_dagster.partitions import SINGLE_RUN, beta_features

REBUILD_TAG = "featurestore/rebuild"
PIECES = 16  # each noted when it is done, so that a rebuild that was cut off goes on where it was
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
            from featurestore_dagster.steps.online import rebuild_pieces

            chosen = [view for view in views if not config.views or view.name in config.views]
            return rebuild_pieces(context, chosen, keys)

    return rebuild
