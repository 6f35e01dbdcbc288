"""Made-up profiles: files of each format land as their ledger says, and labels carry a signal."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import featurestore as fs
from featurestore.landing.columns import Door
from ingest.generator.labels import LabelsFile
from ingest.generator.profiles import FORMATS, Label, People, write_file
from ingest.grpc.formats import read_csv, read_ndjson
from ingest.grpc.parquet import read_parquet

NOW = datetime(2026, 6, 1, tzinfo=UTC)
SOURCE = fs.UploadSource(
    "profiles", timestamp="as_of", schema={"user_id": int, "income": float, "debt": float, "age_years": int}
)
READERS = {"parquet": read_parquet, "csv": read_csv, "ndjson": read_ndjson}


def people(seed: int = 0, bad_share: float = 0.1) -> People:
    return People(seed=seed, users=200, bad_share=bad_share)


@pytest.mark.parametrize("suffix", FORMATS)
def test_files_have_the_good_and_bad_rows_that_they_are_said_to_have(suffix: str, tmp_path: Path) -> None:
    rows = people().history(NOW)
    path = tmp_path / f"a.{suffix}"
    write_file(path, rows)

    pieces = list(READERS[suffix](path, Door(SOURCE), lambda: NOW))

    landed = [row for piece in pieces for row in piece.rows.to_pylist()]
    assert {row.kind for row in rows} == {"good", "doubtful", "bad"}
    assert [row["sequence"] for row in landed] == [index for index, row in enumerate(rows) if row.kind != "bad"]
    assert [row["income"] < 0 for row in landed] == [row.kind == "doubtful" for row in rows if row.kind != "bad"]
    assert [row["event_timestamp"].replace(tzinfo=UTC) for row in landed] == [
        row.profile.as_of for row in rows if row.kind != "bad"
    ]


def test_the_same_seed_makes_the_same_people() -> None:
    one, same, other = people(), people(), people(seed=1)

    assert one.history(NOW) == same.history(NOW)
    assert one.changes(10, NOW) == same.changes(10, NOW)
    assert one.changes(10, NOW) != other.changes(10, NOW)


def test_no_two_profiles_of_a_file_have_the_same_user_and_time() -> None:
    rows = people().changes(50, NOW)

    assert len({(row.profile.user_id, row.profile.as_of) for row in rows}) == 50


def test_labels_follow_from_what_was_known_at_their_time() -> None:
    population = people(bad_share=0.0)
    rows = population.history(NOW)

    labels = population.labels(rows, 4_000, NOW)

    assert len(labels) == 4_000
    assert [label.event_timestamp for label in labels] == sorted(label.event_timestamp for label in labels)

    def ratio(label: Label) -> float:
        profiles = [row.profile for row in rows if row.profile.user_id == label.user_id]
        known = max((one for one in profiles if one.as_of <= label.event_timestamp), key=lambda one: one.as_of)
        return known.debt / known.income

    some = [(ratio(label), label.defaulted) for label in labels[::4]]
    high = [defaulted for value, defaulted in some if value > 0.8]
    low = [defaulted for value, defaulted in some if value < 0.4]
    assert sum(high) / len(high) > 2 * sum(low) / len(low)


def test_the_file_of_labels_grows_and_is_bounded(tmp_path: Path) -> None:
    labels = LabelsFile(tmp_path)
    assert not labels.exists()

    for start in (0, 7_000):
        labels.add([Label(n, NOW + timedelta(seconds=n), 1.0, n % 2 == 0) for n in range(start, start + 7_000)])

    assert pq.read_table(labels.path)["user_id"].to_pylist() == list(range(4_000, 14_000))
    assert [path.name for path in labels.path.parent.iterdir()] == ["labels.parquet"]
