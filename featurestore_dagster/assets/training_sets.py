"""Training sets as assets: what a model is trained on, in the lineage, with its receipt and statistics."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Literal

import dagster as dg

from featurestore.definitions.project import Project
from featurestore.definitions.reference import FeatureOf
from featurestore.definitions.view import View
from featurestore.errors import FeatureStoreError
from featurestore.landing.pending import Cause
from featurestore.training.build import build
from featurestore.training.files import write_training_set
from featurestore.training.pit_plan import KnownAt, PitPlan, plan_reads
from featurestore.training.spine import ArrowStream
from featurestore.training.statistics import ColumnStatistics
from featurestore.training.training_set import TrainingSet
from featurestore_dagster.assets.schema import feature_column
from featurestore_dagster.names import DATABASE_POOL, PLAIN, TRAINING_SETS, Keys
from featurestore_dagster.plots import drawn, plot_of
from featurestore_dagster.resources import Given
from featurestore_dagster.runs import failure

Spine = Callable[[dg.AssetExecutionContext], ArrowStream]


def training_set_asset(
    name: str,
    project: Project,
    features: Sequence[FeatureOf | View],
    *,
    spine: Spine,
    deps: Sequence[dg.AssetKey | dg.AssetSpec | dg.AssetsDefinition | str] = (),
    partitions_def: dg.PartitionsDefinition[str] | None = None,
    time: str = "event_timestamp",
    time_zone: str | None = None,
    known_at: datetime | Literal["row"] | None = None,
    delay: timedelta = timedelta(0),
    description: str = "",
    owners: Sequence[str] | None = None,
    keys: Keys = PLAIN,
) -> dg.AssetsDefinition:
    """An asset that joins features to the rows of `spine`, and writes the set and its receipt as files.

    `spine` is called in the run and returns anything that exports an Arrow stream: keys, times, labels. With
    `partitions_def` it looks at `context.partition_key`, and there is a set per partition. `deps` are the assets that
    it reads; those of the features are added. The rest is as in `Store.training_set`.

    Raises:
        DefinitionError: a feature is not declared, or two have the same name.
    """
    plan = plan_reads(project, features, KnownAt.of(known_at, delay))

    @dg.asset(
        key=keys.training_set(name),
        deps=[*deps, *_feature_deps(plan, keys)],
        partitions_def=partitions_def,
        group_name=TRAINING_SETS,
        kinds={"parquet"},
        description=description or f"Rows with {', '.join(name for _, name in plan.features)}, as of each row's time.",
        owners=owners,
        required_resource_keys=keys.resources("database", "training_sets"),
        pool=DATABASE_POOL,
        metadata={"dagster/column_lineage": _lineage(project, plan, keys)},
    )
    def training_set(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        given = Given(context, keys)
        path = given.training_sets.path(name, context.partition_key if context.has_partition_key else None)
        try:
            rows = spine(context)
            made = build(given.database, plan, rows, time=time, time_zone=time_zone, progress=_Told(context))
            path.parent.mkdir(parents=True, exist_ok=True)
            receipt_file = write_training_set(path, made)
        except FeatureStoreError as error:
            raise failure(error, Cause.INFRASTRUCTURE) from error
        return dg.MaterializeResult(
            metadata=_metadata(made, path, receipt_file), data_version=dg.DataVersion(made.receipt.sha256)
        )

    return training_set


class _Told:
    """Progress in the run's log: once for each thing that is done."""

    def __init__(self, context: dg.AssetExecutionContext) -> None:
        self._context, self._doing = context, ""

    def __call__(self, doing: str, done: int, of: int) -> None:
        if doing != self._doing:
            self._doing = doing
            self._context.log.info(f"{doing} ({of})" if of > 1 else doing)


def _feature_deps(plan: PitPlan, keys: Keys) -> list[dg.AssetDep]:
    """A set sees the whole log up to its rows' times, whatever hours that landed in."""
    names = dict.fromkeys(target.partition("@v")[0] for target, _ in plan.features)
    return [dg.AssetDep(keys.features(name), partition_mapping=dg.AllPartitionMapping()) for name in names]


def _lineage(project: Project, plan: PitPlan, keys: Keys) -> dg.TableColumnLineage:
    columns: dict[str, list[dg.TableColumnDep]] = {}
    for target, name in plan.features:
        view, _, version = target.partition("@v")
        columns[name] = [feature_column(project, project.view(view, int(version))[name], keys)]
    return dg.TableColumnLineage(columns)


def _metadata(made: TrainingSet, path: Path, receipt_file: Path) -> Mapping[str, dg.MetadataValue]:
    receipt, schema = made.receipt, made.table.schema
    columns = [dg.TableColumn(field.name, str(field.type)) for field in schema]
    statistics = [_record(name, one) for name, one in receipt.statistics.items()]
    return {
        "dagster/row_count": dg.MetadataValue.int(receipt.rows),
        "dagster/column_schema": dg.MetadataValue.table_schema(dg.TableSchema(columns)),
        "path": dg.MetadataValue.path(path),
        "receipt": dg.MetadataValue.path(receipt_file),
        "sha256": dg.MetadataValue.text(receipt.sha256),
        "commit_seq": dg.MetadataValue.int(receipt.commit_seq),
        "known_at": dg.MetadataValue.text(receipt.known_at),
        "versions": dg.MetadataValue.json(receipt.versions),
        **({"statistics": dg.MetadataValue.table(statistics)} if statistics else {}),
        **drawn({name: plot_of(made.table[name]) for name in receipt.statistics}),
    }


def _record(name: str, one: ColumnStatistics) -> dg.TableRecord:
    numbers = {"mean": one.mean, "min": one.minimum, "median": one.quantiles.get("0.5"), "max": one.maximum}
    shown = {what: "" if value is None else f"{value:.6g}" for what, value in numbers.items()}
    return dg.TableRecord({"feature": name, "count": one.count, "nulls": one.nulls, **shown})
