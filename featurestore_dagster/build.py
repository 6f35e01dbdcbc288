"""Everything Dagster needs for a project, to use as it is or to merge into a code location of one's own.

What is imported here is loaded with the code, by every process that loads it; so these modules import what they declare
with. What a run or a tick does needs Arrow, Redis and most of the library: that stands in steps/, which the body of an
asset or check imports, and clients are imported where they are opened, in services.py.
"""

from functools import partial

import dagster as dg

from featurestore.definitions.project import Project
from featurestore.settings import Settings
from featurestore_dagster import reconcile
from featurestore_dagster.assets.asset_sources import asset_source_assets
from featurestore_dagster.assets.erasures import erasures_asset, erasures_schedule
from featurestore_dagster.assets.features import feature_assets
from featurestore_dagster.assets.lake import lake_assets, lake_schedule
from featurestore_dagster.assets.landing import landing_assets, landing_schedule
from featurestore_dagster.assets.models import model_assets
from featurestore_dagster.assets.online import online_rebuild
from featurestore_dagster.assets.raw import raw_assets, source_specs
from featurestore_dagster.checks.definitions import checks_of, run_by_hand
from featurestore_dagster.load import checked, collecting_later
from featurestore_dagster.maintenance import purge_schedule
from featurestore_dagster.names import Keys
from featurestore_dagster.resources import resources
from featurestore_dagster.sensors import asset_sources, checks, failures, landed, models, online_lost
from featurestore_dagster.sensors.failures import Notify
from featurestore_dagster.services import connect, open_blobs, open_models


@collecting_later()
def build_definitions(
    project: Project,
    settings: Settings,
    *,
    notify: Notify | None = None,
    executor: dg.ExecutorDefinition | None = dg.in_process_executor,
) -> dg.Definitions:
    """Assets, checks, sensors, schedules and resources of `project`; nothing connects.

    `notify` is told about each failed run; by default the log is, and the webhook of the settings.

    In `definitions.py` of a code location: `defs = build_definitions(PROJECT, Settings.from_env(os.environ))`, or
    `dg.Definitions.merge(build_definitions(…), dg.Definitions(…))`: say `executor=None` where that has an executor of
    its own. Several projects can be merged, each with its namespace and data directory; the namespace stands in front
    of every name, of resources too.

    Raises:
        DefinitionError: SQL that does not fit its source, or a view that was changed and kept its version.
    """
    project = checked(project, settings)
    keys, services = Keys(settings.namespace), connect(settings)
    looks = checks_of(project, keys)  # accounting, completeness, future rows, parity
    return dg.Definitions(
        assets=[
            *source_specs(project, keys),  # source/…    topics and uploads (outside)
            *asset_source_assets(project, keys),  # those that are assets or folders, landed like uploads
            *raw_assets(project, keys),  # raw/…       landed batches of an hour, checked
            *feature_assets(project, keys),  # features/…  the log, online/… in the same step; derived views as nodes
            *landing_assets(project, keys),  # landing/…   landed files: compacted, removed when they are too old
            *lake_assets(project, keys),  # lake/…      closed days of the log, in Parquet files
            erasures_asset(project, settings.redis, keys),  # erasures    entities that were erased: finished, settled
            *model_assets(project, keys),  # models/…    metadata → DuckDB, production artifacts → Redis
            online_rebuild(project, keys),
        ],
        asset_checks=run_by_hand(looks, project, keys),
        sensors=[
            landed.sensor(project, services, settings.dagster, keys),
            models.sensor(partial(open_blobs, settings), partial(open_models, settings), keys),
            online_lost.sensor(project, services, keys),
            checks.sensor(looks, project, services, keys),
            failures.sensor(notify or failures.notify_as_set(settings.dagster), keys),
            *asset_sources.sensors(project, services, keys),
        ],
        schedules=[
            landing_schedule(project, keys),
            lake_schedule(project, keys),
            erasures_schedule(keys),
            purge_schedule(keys),
            reconcile.schedule(project, services, settings.dagster, keys),
        ],
        resources=resources(settings, keys),
        executor=executor,
    )
