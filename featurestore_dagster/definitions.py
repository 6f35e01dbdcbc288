"""The code location: everything Dagster sees, by name."""

import os
from functools import partial

import dagster as dg

from featurestore.settings import Settings
from featurestore_dagster.assets.features import feature_assets
from featurestore_dagster.assets.lake import lake_assets, lake_schedule
from featurestore_dagster.assets.models import model_assets
from featurestore_dagster.assets.online import online_rebuild
from featurestore_dagster.assets.raw import raw_assets, source_specs
from featurestore_dagster.checks.accounting import accounting
from featurestore_dagster.checks.completeness import completeness
from featurestore_dagster.checks.future_rows import future_rows
from featurestore_dagster.checks.parity import parity
from featurestore_dagster.features.project import PROJECT
from featurestore_dagster.maintenance import purge, reconcile
from featurestore_dagster.names import Keys
from featurestore_dagster.resources import resources
from featurestore_dagster.sensors import checks, failures, landed, models, online_lost
from featurestore_dagster.services import connect, open_blobs, open_models

SETTINGS = Settings.from_env(os.environ)  # noqa: TID251  # an entry point
SERVICES = connect(SETTINGS)
KEYS = Keys(SETTINGS.namespace)

defs = dg.Definitions(
    assets=[
        *source_specs(PROJECT, KEYS),  # source/…    topics and uploads (outside)
        *raw_assets(PROJECT, KEYS),  # raw/…       landed batches of an hour, checked
        *feature_assets(PROJECT, KEYS),  # features/…  the log, and online/… in the same step; derived views as nodes
        *lake_assets(PROJECT, KEYS),  # lake/…      closed days of the log, in Parquet files
        *model_assets(PROJECT, KEYS),  # models/…    metadata → DuckDB, production artifacts → Redis
        online_rebuild(PROJECT, KEYS),
    ],
    asset_checks=[
        *accounting(PROJECT, KEYS),
        *completeness(PROJECT, KEYS),
        *future_rows(PROJECT, KEYS),
        *parity(PROJECT, KEYS),
    ],
    sensors=[
        landed.sensor(PROJECT, SERVICES, SETTINGS.dagster, KEYS),
        models.sensor(partial(open_blobs, SETTINGS), partial(open_models, SETTINGS), KEYS),
        online_lost.sensor(PROJECT, SERVICES, KEYS),
        checks.sensor(PROJECT, SERVICES, KEYS),
        failures.sensor(),
    ],
    schedules=[lake_schedule(PROJECT, KEYS), purge, reconcile],
    resources=resources(SETTINGS),
    executor=dg.in_process_executor,
)
