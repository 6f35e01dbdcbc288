"""The newest row is the one that the total order says, whole, in any arrival order."""

import random
from collections.abc import Generator
from dataclasses import replace
from datetime import datetime, timedelta

import pyarrow as pa
import pytest

import featurestore as fs
from featurestore.database.embedded import EmbeddedDatabase
from featurestore.database.tables import schema_job
from featurestore.entity_id import Piece
from featurestore.offline import snapshot
from featurestore.offline.newest import newest_rows, recent_entity_ids
from featurestore.offline.relations import log_relation
from featurestore.order import HEAD, tie
from tests.featurestore.database.examples import ACTIVITY, NOON, SCHEMA, job, line, row, table

Row = dict[str, object]


@pytest.fixture
def database() -> Generator[EmbeddedDatabase]:
    opened = EmbeddedDatabase()
    opened.ensure(SCHEMA)
    yield opened
    opened.close()


def at(seconds: int) -> datetime:
    return (NOON + timedelta(seconds=seconds)).replace(tzinfo=None)


def append(database: EmbeddedDatabase, batch_id: str, *rows: Row) -> None:
    database.append(replace(job(), lines=(line(batch_id, len(rows)),), rows=table(*rows)))


@pytest.mark.parametrize("seed", range(15))
def test_it_is_the_greatest_by_the_total_order(database: EmbeddedDatabase, seed: int) -> None:
    dice = random.Random(seed)
    rows: list[tuple[str, Row]] = []
    for number in range(60):
        batch = f"batch-{number // 4}"
        values = {"entity_id": str(dice.randint(0, 5)), "steps": dice.choice([None, number])}
        times = {"event_timestamp": at(dice.randint(0, 3)), "created_at": at(int(batch[6:]) // 5)}
        rows.append((batch, row(batch, number % 4, **values, **times)))
    for batch in dice.sample(sorted({batch for batch, _ in rows}), 15):
        append(database, batch, *(one for name, one in rows if name == batch))
    best: dict[object, Row] = {}
    for _, one in rows:
        known = best.get(one["entity_id"])
        if known is None or [one[c] for c in HEAD[1:]] > [known[c] for c in HEAD[1:]]:  # type: ignore[operator]
            best[one["entity_id"]] = one
    found = newest_rows(database, ACTIVITY)
    assert found.column_names == [*HEAD, *(column.name for column in ACTIVITY.columns)]
    expected = [{name: one[name] for name in found.column_names} for _, one in sorted(best.items(), key=str)]
    assert found.to_pylist() == expected


def test_its_nulls_are_null(database: EmbeddedDatabase) -> None:
    append(database, "a", row("a", 1, entity_id="u", last_action="old", amount=1.0))
    append(database, "b", row("b", 2, entity_id="u", last_action=None, amount=None))
    [newest] = newest_rows(database, ACTIVITY).to_pylist()
    assert (newest["last_action"], newest["amount"], newest["tie"]) == (None, None, tie("b"))


def test_it_can_be_asked_for_some(database: EmbeddedDatabase) -> None:
    database.append(job(("a", 30)))
    found = newest_rows(database, ACTIVITY, entity_ids=["3", "5", "nobody"]).to_pylist()
    assert [(one["entity_id"], one["sequence"]) for one in found] == [("3", 23), ("5", 25)]
    assert newest_rows(database, ACTIVITY, entity_ids=[]).num_rows == 0
    pieces = [newest_rows(database, ACTIVITY, piece=Piece(number, 3)) for number in range(3)]
    assert pa.concat_tables(pieces).sort_by("entity_id").equals(newest_rows(database, ACTIVITY))
    for number, piece in enumerate(pieces):
        assert all(Piece(number, 3).holds(entity_id) for entity_id in piece["entity_id"].to_pylist())


def test_recent_ids_are_those_that_landed_last(database: EmbeddedDatabase) -> None:
    other = fs.FeatureView("other", ACTIVITY.entity, ACTIVITY.source, [fs.Feature("strides", int, "steps * 2")])
    database.ensure(schema_job(fs.Project(views=(ACTIVITY, other))))
    append(database, "a", row("a", 1, entity_id="old"), row("a", 2, entity_id="newer"))
    append(database, "b", row("b", 0, entity_id="late event", created_at=at(9)))
    assert recent_entity_ids(database, [ACTIVITY, other], 2) == ["late event", "newer"]
    assert recent_entity_ids(database, [ACTIVITY], 10) == ["late event", "newer", "old"]
    assert recent_entity_ids(database, [other], 10) == recent_entity_ids(database, [], 10) == []


def test_a_log_relation_is_a_table(database: EmbeddedDatabase) -> None:
    assert database.query_arrow(f"FROM {log_relation(ACTIVITY)}").num_rows == 0


def test_more_entities_than_one_reply_holds_come_in_parts(
    database: EmbeddedDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    append(database, "a", *(row("a", number, entity_id=str(number)) for number in range(500)))
    whole = newest_rows(database, ACTIVITY)
    replies: list[int] = []

    def answer(sql: str, params: object = None) -> pa.Table:
        found = EmbeddedDatabase.query_arrow(database, sql, params)  # type: ignore[arg-type]
        replies.append(found.num_rows)
        return found

    monkeypatch.setattr(snapshot, "_PAGE_BYTES", 20_000)
    monkeypatch.setattr(database, "query_arrow", answer)
    assert newest_rows(database, ACTIVITY).equals(whole)
    assert whole.num_rows == 500
    assert max(replies) < 250
