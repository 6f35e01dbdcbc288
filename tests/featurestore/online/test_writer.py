"""What is sent: the newest row of each entity, as commands of the protocol."""

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from featurestore.online import writer
from featurestore.online.keys import Keys
from featurestore.online.octets import as_bytes
from featurestore.online.writer import encoded, newest_rows
from featurestore.order import Order
from tests.featurestore.online.examples import ACTIVITY, NOW_US, order, row, table, view

places = st.builds(
    Order,
    event_timestamp=st.integers(NOW_US, NOW_US + 2),
    created_at=st.integers(NOW_US, NOW_US + 1),
    sequence=st.integers(0, 2),
    tie=st.integers(0, 2),
)


@given(st.lists(st.tuples(st.sampled_from("abc"), places), max_size=12))
def test_folding_keeps_the_newest_of_each_entity(given_rows: list[tuple[str, Order]]) -> None:
    rows = table([row(entity_id, place) for entity_id, place in given_rows])
    newest = {entity_id: max(p for e, p in given_rows if e == entity_id) for entity_id, _ in given_rows}
    folded = newest_rows(rows)
    assert folded.num_rows == len(newest)
    for one in folded.select(["entity_id", "sequence", "tie"]).to_pylist():
        place = newest[one["entity_id"]]
        assert (one["sequence"], one["tie"]) == (place.sequence, place.tie)


def test_folding_takes_tables_of_several_pieces() -> None:
    pieces = [table([row("a", order(n), score=float(n))]) for n in range(5)]
    assert newest_rows(pa.concat_tables(pieces))["score"].to_pylist() == [4.0]


def test_a_frame_is_one_call_in_the_protocol() -> None:
    view_of_score = view("score")
    [chunk] = encoded(view_of_score, table([row("1", order(), score=1.0)]), Keys("ns"))
    values = {name: as_bytes(column) for name, column in chunk.fields}
    words = [b"EVALSHA", b"x" * 40, b"1", b"ns:fs:{user:1}"]
    words += [part for name, value in values.items() for part in (name, bytes(value))]
    expected = b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)
    assert bytes(chunk.frames(b"x" * 40)) == expected


def test_rows_are_sent_in_bounded_pieces() -> None:
    rows = table([row(str(number), order(), city="x" * (number % 7)) for number in range(2_345)])
    chunks = list(encoded(ACTIVITY, rows, Keys()))
    assert [chunk.rows for chunk in chunks] == [writer.CHUNK_ROWS, writer.CHUNK_ROWS, 345]
    assert b"".join(bytes(chunk.frames(b"x" * 40)) for chunk in chunks).count(b"EVALSHA") == 2_345


def test_nothing_is_sent_of_a_view_without_online_features() -> None:
    assert list(encoded(view("none"), table([row("1", order())]), Keys())) == []
