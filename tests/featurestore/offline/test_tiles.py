"""Tiles from the log: whole ones, of all rows, wherever these are by now."""

from collections.abc import Generator
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pytest

import featurestore as fs
from featurestore.database.embedded import EmbeddedDatabase
from featurestore.entity_id import Piece
from featurestore.offline import tiles
from featurestore.offline.lake import Lake
from featurestore.offline.tiles import recent_tiles, touched_tiles
from tests.featurestore.online.examples import NOW, NOW_US, SECOND, VISITS, append, order, row, table

DAY_S = 86_400


@pytest.fixture
def database(tmp_path: Path) -> Generator[EmbeddedDatabase]:
    with closing(EmbeddedDatabase(tmp_path / "own.duckdb", lake_dir=tmp_path / "lake")) as one:
        yield one


def visits(*seconds: float, entity_id: str = "1", known: int = 0, score: float = 1.0) -> pa.Table:
    rows = [row(entity_id, order(at, known, number), score=score) for number, at in enumerate(seconds)]
    return table(rows, VISITS)


def found(parts: object, hop_s: int = 5) -> dict[tuple[str, int], int]:
    """How many visits each tile of a hop has, by entity and the second from NOW at which it ends."""
    made = pa.concat_tables(list(parts)).to_pylist()  # type: ignore[call-overload]
    of_hop = [one for one in made if one["_hop_us"] == hop_s * SECOND]
    return {(one["entity_id"], one["_k"] * hop_s - NOW_US // SECOND): one["visits"] for one in of_hop}


def test_only_touched_tiles_are_made_and_of_all_their_rows(database: EmbeddedDatabase) -> None:
    append(database, VISITS, visits(-12, -7, -5, 0))
    late = visits(-6, known=60)
    assert found(touched_tiles(database, VISITS, late, append(database, VISITS, late))) == {("1", -5): 3}


def test_rows_in_the_lake_count(database: EmbeddedDatabase, tmp_path: Path) -> None:
    append(database, VISITS, visits(-12, -7, -5, 0))
    assert Lake(tmp_path / "lake", after_days=1).move(database, "visits", NOW + timedelta(days=9)).rows == 4
    late = visits(-6, known=5 * DAY_S)
    commit_seqs = append(database, VISITS, late)
    assert found(touched_tiles(database, VISITS, late, commit_seqs)) == {("1", -5): 3}
    assert found(recent_tiles(database, VISITS, now=NOW)) == {("1", -10): 1, ("1", -5): 3, ("1", 0): 1}


def test_recent_tiles_are_whole_and_those_that_a_read_can_reach(database: EmbeddedDatabase) -> None:
    append(database, VISITS, visits(-131, -124, -123, -118, 0))
    assert found(recent_tiles(database, VISITS, now=NOW + timedelta(seconds=2))) == {
        ("1", -120): 2, ("1", -115): 1, ("1", 0): 1,
    }  # fmt: skip


def test_parts_are_of_different_entities(database: EmbeddedDatabase, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(20):
        append(database, VISITS, visits(-1, -2, -90, entity_id=str(number)))
    whole = found(recent_tiles(database, VISITS, now=NOW))
    assert len(whole) == 40
    monkeypatch.setattr(tiles, "_PART_TILES", 30)
    parts = list(recent_tiles(database, VISITS, now=NOW))
    assert len(parts) > 1
    assert found(parts) == whole
    pieces = [found(recent_tiles(database, VISITS, now=NOW, piece=Piece(number, 3))) for number in range(3)]
    assert sum(map(len, pieces)) == 40
    assert {place: count for piece in pieces for place, count in piece.items()} == whole
    of_one = found(recent_tiles(database, VISITS, now=NOW, entity_ids=["7"]))
    assert of_one == {place: count for place, count in whole.items() if place[0] == "7"}


def test_aggregations_may_have_any_name(database: EmbeddedDatabase) -> None:
    names = ("k", "size", "fresh", "after", "until", "hop_us", "newest_us", "inputs", "tiles", "in_order")
    sums = [fs.Aggregation(name, "mean", "score", windows=("2m",), online=True) for name in names]
    view = fs.FeatureView("named", VISITS.entity, VISITS.source, sums)
    rows = table([row("1", order(-1, 0, n), **dict.fromkeys(names, 0.1)) for n in range(3)], view)
    [tile] = pa.concat_tables(touched_tiles(database, view, rows, append(database, view, rows))).to_pylist()
    assert [tile[name] for name in names] == [0.1 + 0.1 + 0.1] * len(names)
