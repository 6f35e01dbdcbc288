"""Values of features become rows of their sources, landed once for each job id, all of a job or nothing."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import featurestore as fs
from featurestore.database.feature_jobs import FeatureJob, Value
from featurestore.errors import JobRefusedError
from featurestore.landing.zone import LandingZone
from ingest.feature_writes import FeatureWrites

NOW = datetime.now(UTC).replace(microsecond=250_000)

USER = fs.Entity("user", key="user_id")
PAIR = fs.Entity("pair", key=("user_id", "merchant"))
SCORES = fs.UploadSource(
    "scores", timestamp="at", schema={"user_id": int, "risk": float, "label": str | None, "vip": bool | None}
)
VISITS = fs.KafkaSource(
    "visits", timestamp="ms", timestamp_format="ms", schema={"user_id": int, "merchant": str, "visits": int}
)
PROJECT = fs.Project(
    (
        fs.FeatureView(
            "risk_scores",
            USER,
            SCORES,
            [
                fs.Feature("risk", float),
                fs.Feature("risk_label", str, "label"),
                fs.Feature("vip", bool),
                fs.Feature("risk_percent", float, "risk * 100"),
                fs.Aggregation("mean_risk", "mean", "risk", windows=("1h",)),
            ],
        ),
        fs.FeatureView("pair_visits", PAIR, VISITS, [fs.Feature("visits", int)]),
    )
)


def value(feature: str, what: object, *, entity_id: str = "1", at: datetime = NOW) -> Value:
    return Value(entity_id, feature, what, at)  # type: ignore[arg-type]


@pytest.fixture
def zone(tmp_path: Path) -> LandingZone:
    return LandingZone(tmp_path)


@pytest.fixture
def writes(zone: LandingZone) -> FeatureWrites:
    return FeatureWrites(PROJECT, zone)


def test_values_of_one_time_are_one_row_of_the_source(writes: FeatureWrites, zone: LandingZone) -> None:
    later = NOW + timedelta(seconds=1)
    job = FeatureJob(
        "one",
        (
            value("risk", 0.5),
            value("visits", 3, entity_id="1|m\\|2"),
            value("risk_label", "low"),
            value("risk", 1, at=later),
            value("vip", None),
        ),
    )
    assert writes.land(job) == [
        "scores/job=one/00000000000000000000.parquet",
        "visits/job=one/00000000000000000000.parquet",
    ]
    first, second = zone.batches()
    assert zone.read(first).drop_columns(["event_timestamp"]).to_pylist() == [
        {"sequence": 0, "user_id": 1, "risk": 0.5, "label": "low", "vip": None},
        {"sequence": 1, "user_id": 1, "risk": 1.0, "label": None, "vip": None},
    ]
    assert [t.replace(tzinfo=UTC) for t in zone.read(first)["event_timestamp"].to_pylist()] == [NOW, later]
    assert (first.min_event_timestamp, first.max_event_timestamp) == (NOW, later)
    assert zone.read(second)["merchant"].to_pylist() == ["m|2"]
    assert second.schema_version == VISITS.schema_version


def test_a_job_is_landed_once_however_often_it_is_sent(writes: FeatureWrites, zone: LandingZone) -> None:
    job = FeatureJob("again", (value("risk", 0.5),))
    with ThreadPoolExecutor(4) as pool:
        landed = list(pool.map(writes.land, [job] * 8))
    assert landed == [landed[0]] * 8
    assert [batch.batch_id for batch in LandingZone(zone.storage).batches()] == landed[0]
    with pytest.raises(JobRefusedError, match="job_id 'again' was used for other values"):
        writes.land(FeatureJob("again", (value("risk", 0.6),)))


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ((value("rsk", 0.5),), "value 0: the project has no feature 'rsk'; did you mean 'risk'?"),
        (
            (value("risk_percent", 5.0),),
            r"value 0: feature_name: 'risk_percent' is computed \(risk \* 100\)",
        ),
        ((value("mean_risk_1h", 5.0),), "value 0: 'mean_risk_1h' is computed from rows, it cannot be written"),
        ((value("risk", "high"),), "value 0: not a row of source 'scores': risk: .*, not a number"),
        ((value("risk", True),), "value 0: not a row of source 'scores': risk: .*, not a number"),
        ((value("risk", None),), "value 0: not a row of source 'scores': risk: "),
        ((value("risk", float("nan")),), "value 0: 'risk' is no finite number"),
        (
            (value("risk", 0.5), value("vip", True, entity_id="2")),
            "value 1: not a row of source 'scores': risk: missing",
        ),
        ((value("risk", 0.5, entity_id="007"),), "value 0: entity_id: '007' is not the text of a whole number"),
        ((value("visits", 1, entity_id="1"),), "value 0: '1' is not the text of a key of 2 columns"),
        ((value("risk", 0.5), value("risk", 0.6)), "value 1: 'risk' stands there twice, with different values"),
        ((value("risk", 0.5, at=NOW + timedelta(hours=1)),), "value 0: not a row of source 'scores': at: .* future"),
        (
            (value("visits", 1.5, entity_id="1|m"), value("risk", 0.5)),
            "value 0: not a row of source 'visits': visits: ",
        ),
    ],
)
def test_what_cannot_be_landed_is_named_and_nothing_is_landed(
    writes: FeatureWrites, zone: LandingZone, values: tuple[Value, ...], reason: str
) -> None:
    with pytest.raises(JobRefusedError, match=reason):
        writes.land(FeatureJob("wrong", values))
    assert zone.batches() == []


@pytest.mark.parametrize("job_id", ["", ".", "..", "../up", "a/b", "/etc", "a b", "x" * 129, "ü"])
def test_a_job_id_is_a_plain_name(writes: FeatureWrites, zone: LandingZone, job_id: str) -> None:
    with pytest.raises(JobRefusedError, match="is not a name of up to 128 letters"):
        writes.land(FeatureJob(job_id, (value("risk", 0.5),)))
    assert zone.batches() == []
