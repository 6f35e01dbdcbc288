"""Write Grafana's dashboards to deploy/grafana/dashboards. What a panel asks stands here and nowhere else."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from string import ascii_uppercase

from grafana_foundation_sdk.builders.common import VizLegendOptions
from grafana_foundation_sdk.builders.dashboard import Dashboard, Row, ThresholdsConfig
from grafana_foundation_sdk.builders.prometheus import Dataquery
from grafana_foundation_sdk.builders.stat import Panel as StatPanel
from grafana_foundation_sdk.builders.timeseries import Panel as SeriesPanel
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import LegendDisplayMode, LegendPlacement
from grafana_foundation_sdk.models.dashboard import DataSourceRef, Threshold, ThresholdsMode

TREE = Path(__file__).parents[1]
DIRECTORY = Path("deploy", "grafana", "dashboards")
SOURCE = DataSourceRef(type_val="prometheus", uid="featurestore")
SERIES_HEIGHT, STAT_HEIGHT, WIDTH = 8, 4, 24
RATE = "$__rate_interval"


@dataclass(frozen=True)
class Series:
    """A plot over time; `queries`: legend → expression."""

    title: str
    queries: Mapping[str, str]
    unit: str = "short"
    description: str = ""


@dataclass(frozen=True)
class Stat:
    """One number; red from `bad` on."""

    title: str
    query: str
    unit: str = "short"
    bad: float | None = None
    description: str = ""


@dataclass(frozen=True)
class Page:
    """A dashboard: rows of panels, each row of one kind."""

    uid: str
    title: str
    description: str
    rows: Mapping[str, Sequence[Series] | Sequence[Stat]]


def rate(metric: str, *by: str, where: str = "") -> str:
    """The rate per second of a counter."""
    total = f"rate({metric}{{{where}}}[{RATE}])" if where else f"rate({metric}[{RATE}])"
    return f"sum by ({', '.join(by)}) ({total})" if by else f"sum({total})"


def quantile(q: float, histogram: str, *by: str) -> str:
    """A quantile of a histogram."""
    return f"histogram_quantile({q}, sum by ({', '.join(('le', *by))}) (rate({histogram}_bucket[{RATE}])))"


OVERVIEW = Page(
    "fs-overview",
    "Feature store",
    "Is everything that arrived readable, and how soon?",
    {
        "Now": (
            Stat("Processes that do not answer", "count(up == 0) or vector(0)", bad=1),
            Stat("Pending batches", "sum(fs_pending_batches)"),
            Stat("Parked batches", "sum(fs_parked_batches)", bad=1),
            Stat("Checks that are red", "count(fs_asset_check_passed == 0) or vector(0)", bad=1),
            Stat("Runs that wait", 'sum(fs_dagster_runs{status="QUEUED"})'),
            Stat("Free disk", "fs_data_free_bytes / fs_data_size_bytes", unit="percentunit"),
        ),
        "The way of the data": (
            Series(
                "Records",
                {
                    "landed {{source}}": rate("fs_ingest_records_total", "source", where='outcome="landed"'),
                    "dead letters {{source}}": rate("fs_ingest_records_total", "source", where='outcome="dead_letter"'),
                },
                unit="rowsps",
            ),
            Series(
                "Rows of views",
                {"{{outcome}} {{view}}": rate("fs_feature_rows_total", "view", "outcome")},
                unit="rowsps",
            ),
            Series(
                "Online values",
                {"{{outcome}} {{view}}": rate("fs_online_push_total", "view", "outcome")},
                unit="rowsps",
                description="stale: what Redis had was newer, so it stayed",
            ),
        ),
        "Freshness": (
            Series(
                "Newest event that is in the log",
                {"{{view}}": "time() - fs_feature_newest_event_timestamp_seconds"},
                unit="s",
                description="how long ago it happened",
            ),
            Series(
                "Looks that found something late",
                {"{{source}}": "fs:freshness_late:ratio_5m"},
                unit="percentunit",
                description="what landed longer ago than FEATURESTORE_DAGSTER_FRESH_WITHIN_S; the objective is 1 %",
            ),
            Series("Pending rows", {"{{source}}": "fs_pending_rows"}),
        ),
    },
)

INGEST = Page(
    "fs-ingest",
    "Feature store: ingest",
    "Kafka and uploads, as they land.",
    {
        "Kafka": (
            Series("Records that are not landed yet", {"{{topic}} {{partition}}": "fs_kafka_lag_records"}),
            Series(
                "Batches that another writer landed first", {"{{source}}": rate("fs_ingest_fenced_total", "source")}
            ),
        ),
        "Landing": (
            Series(
                "Records by outcome", {"{{source}} {{outcome}}": rate("fs_ingest_records_total", "source", "outcome")}
            ),
            Series("Bytes", {"{{source}}": rate("fs_ingest_landed_bytes_total", "source")}, unit="Bps"),
            Series(
                "Until a batch is durable",
                {
                    "{{source}} p50": quantile(0.5, "fs_ingest_batch_seconds", "source"),
                    "{{source}} p95": quantile(0.95, "fs_ingest_batch_seconds", "source"),
                },
                unit="s",
            ),
        ),
        "Generator": (
            Series("Records sent", {"{{source}} {{outcome}}": rate("fs_generator_records_total", "source", "outcome")}),
        ),
    },
)

DATABASE = Page(
    "fs-database",
    "Feature store: database",
    "The one writer of DuckDB, and its readers.",
    {
        "Writes": (
            Series("Jobs that wait", {"jobs": "fs_write_queue_depth"}),
            Series("Jobs by outcome", {"{{outcome}}": rate("fs_write_jobs_completed_total", "outcome")}, unit="ops"),
            Series("Rows", {"rows": rate("fs_write_rows_total")}, unit="rowsps"),
        ),
        "How long": (
            Series(
                "A write job, from being taken to its reply",
                {
                    "{{kind}} p50": quantile(0.5, "fs_write_job_seconds", "kind"),
                    "{{kind}} p95": quantile(0.95, "fs_write_job_seconds", "kind"),
                },
                unit="s",
            ),
            Series(
                "A query, from being admitted to its reply",
                {
                    "p50": quantile(0.5, "fs_read_query_seconds"),
                    "p99": quantile(0.99, "fs_read_query_seconds"),
                },
                unit="s",
            ),
            Series("Jobs done together", {"p50": quantile(0.5, "fs_write_group_jobs")}),
        ),
        "Reads": (Series("Queries by outcome", {"{{outcome}}": rate("fs_reads_total", "outcome")}, unit="ops"),),
    },
)

DAGSTER = Page(
    "fs-dagster",
    "Feature store: Dagster",
    "Runs, assets, checks, sensors.",
    {
        "Runs": (
            Series("Live", {"{{status}}": 'fs_dagster_runs{status=~"QUEUED|STARTING|STARTED|CANCELING"}'}),
            Series("Ended per second", {"{{status}}": rate("fs_dagster_runs_ended_total", "status")}, unit="ops"),
        ),
        "Assets": (
            Series(
                "Since they were materialized",
                {"{{asset}}": "time() - fs_asset_materialized_timestamp_seconds"},
                unit="s",
            ),
            Series("Last attempt failed", {"{{asset}}": "fs_asset_failed"}),
            Series("Checks: 1 is green", {"{{asset}} {{check}}": "fs_asset_check_passed"}),
        ),
        "Daemons": (
            Series(
                "Since the last heartbeat", {"{{daemon}}": "time() - fs_dagster_heartbeat_timestamp_seconds"}, unit="s"
            ),
            Series(
                "Since the last tick", {"{{kind}} {{name}}": "time() - fs_dagster_tick_timestamp_seconds"}, unit="s"
            ),
            Series("Ticks that failed", {"{{kind}} {{name}}": "fs_dagster_tick_failed"}),
        ),
    },
)

SERVER = Page(
    "fs-server",
    "Feature store: server",
    "Features and scores over HTTP and gRPC.",
    {
        "Requests": (
            Series(
                "By outcome",
                {"{{transport}} {{outcome}}": rate("fs_server_requests_total", "transport", "outcome")},
                unit="reqps",
            ),
            Series("Rows", {"{{transport}}": rate("fs_server_rows_total", "transport")}, unit="rowsps"),
            Series(
                "From a whole request to its reply",
                {
                    "{{transport}} p50": quantile(0.5, "fs_server_seconds", "transport"),
                    "{{transport}} p99": quantile(0.99, "fs_server_seconds", "transport"),
                },
                unit="s",
            ),
        ),
    },
)

PAGES = (OVERVIEW, INGEST, DATABASE, DAGSTER, SERVER)


def dashboard(page: Page) -> str:
    """The page as Grafana's JSON."""
    board = (
        Dashboard(page.title)
        .uid(page.uid)
        .description(page.description)
        .tags(["featurestore"])
        .refresh("10s")
        .time("now-30m", "now")
        .timezone("utc")
    )
    ids = count(1)
    for title, panels in page.rows.items():
        board = board.with_row(Row(title).id(next(ids)))
        for panel in panels:
            board = board.with_panel(_panel(panel, span=WIDTH // len(panels)).id(next(ids)))
    return JSONEncoder(sort_keys=True, indent=2).encode(board.build()) + "\n"


def _panel(panel: Series | Stat, *, span: int) -> SeriesPanel | StatPanel:
    return _series(panel, span) if isinstance(panel, Series) else _stat(panel, span)


def _series(panel: Series, span: int) -> SeriesPanel:
    legend = VizLegendOptions().display_mode(LegendDisplayMode.LIST).placement(LegendPlacement.BOTTOM).show_legend(True)
    made = SeriesPanel().title(panel.title).description(panel.description).datasource(SOURCE).unit(panel.unit)
    made = made.legend(legend).min(0).span(span).height(SERIES_HEIGHT)
    for name, (legend_format, expression) in zip(ascii_uppercase, panel.queries.items(), strict=False):
        made = made.with_target(Dataquery().ref_id(name).expr(expression).legend_format(legend_format))
    return made


def _stat(panel: Stat, span: int) -> StatPanel:
    steps = [Threshold(value=None, color="green")]
    if panel.bad is not None:
        steps.append(Threshold(value=panel.bad, color="red"))
    made = StatPanel().title(panel.title).description(panel.description).datasource(SOURCE).unit(panel.unit)
    made = made.thresholds(ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(steps))
    return made.span(span).height(STAT_HEIGHT).with_target(Dataquery().ref_id("A").expr(panel.query))


def generate(root: Path) -> list[Path]:
    """Write all dashboards below `root`; return their paths, relative to it."""
    paths: list[Path] = []
    for page in PAGES:
        path = DIRECTORY / f"{page.uid}.json"
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(dashboard(page))
        paths.append(path)
    return paths


if __name__ == "__main__":
    generate(TREE)
