"""A materialized asset, or a new file of a folder → a run that lands it."""

from time import time

import dagster as dg
import msgspec

from featurestore.definitions.project import Project
from featurestore.definitions.source import AssetSource
from featurestore.errors import FeatureStoreError
from featurestore_dagster.assets.asset_sources import arrival_of, asset_sources, digest, files
from featurestore_dagster.names import PLAIN, Keys
from featurestore_dagster.services import Connect

JOB = "land_assets"
AGAIN_S = 300
SEEN_AT_ONCE = 100  # materializations of an asset per tick


def sensors(project: Project, connect: Connect, keys: Keys = PLAIN) -> list[dg.SensorDefinition]:
    """None for a project without such sources."""
    return [_sensor(project, connect, keys)] if asset_sources(project) else []


def _sensor(project: Project, connect: Connect, keys: Keys) -> dg.SensorDefinition:
    sources = asset_sources(project)
    targets = [keys.source(source.name) for source in sources]

    @dg.sensor(
        name=keys.name("asset_sources"),
        target=dg.define_asset_job(
            keys.name(JOB), selection=targets, description="Assets and folders → landed batches."
        ),
        minimum_interval_seconds=5,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Requests a run for each materialization of a source's asset, and for new files of its folder.",
    )
    def arrived(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        seen = _read(context.cursor)
        requests: list[dg.RunRequest] = []
        try:
            with connect() as services:
                for source in sources:
                    if source.path:
                        new = [
                            one
                            for one in files(source)
                            if services.landing.open_upload(source.name, one.upload_id).manifest() is None
                        ]
                        if new:  # asked for again every few minutes, should the run fail
                            names = " ".join(one.upload_id for one in new)
                            requests.append(_request(source, keys, f"{digest(names)} {int(time() // AGAIN_S)}"))
                    else:
                        requests += _materialized(context.instance, source, keys, seen)
        except FeatureStoreError as error:
            return dg.SkipReason(str(error))
        return dg.SensorResult(run_requests=requests, cursor=msgspec.json.encode(seen).decode())

    return arrived


def _materialized(
    instance: dg.DagsterInstance, source: AssetSource, keys: Keys, seen: dict[str, int]
) -> list[dg.RunRequest]:
    """A run for each partition that was materialized since; of several materializations of one, the last is there."""
    wanted = dg.AssetRecordsFilter(
        dg.AssetKey.from_user_string(source.asset_key), after_storage_id=seen.get(source.name) or None
    )
    last = {
        record.partition_key or "": record
        for record in instance.fetch_materializations(wanted, limit=SEEN_AT_ONCE, ascending=True).records
    }
    for record in last.values():
        seen[source.name] = max(seen.get(source.name, 0), record.storage_id)
    return [
        _request(source, keys, arrival_of(record).upload_id, partition=partition) for partition, record in last.items()
    ]


def _request(source: AssetSource, keys: Keys, run_key: str, *, partition: str = "") -> dg.RunRequest:
    key = keys.source(source.name)
    config = {"ops": {key.to_python_identifier(): {"config": {"partition": partition}}}}
    return dg.RunRequest(run_key=run_key, asset_selection=[key], run_config=config)


def _read(cursor: str | None) -> dict[str, int]:
    try:
        return msgspec.json.decode(cursor or "{}", type=dict[str, int])
    except msgspec.MsgspecError:
        return {}
