"""Records: what is let in, what is not and why, and that nothing is lost on the way."""

import json
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

import featurestore as fs
from featurestore.landing.columns import Door, clock_is_wrong
from featurestore.landing.schema import landed_schema
from ingest.records import Decoded, JsonDecoder
from tests.corpus.bad_records import BAD, GOOD, ODD, SCHEMA, with_value

NOW = datetime(2026, 6, 1, tzinfo=UTC)
SOURCE = fs.KafkaSource("things", timestamp="at", schema=SCHEMA)
DOOR = Door(SOURCE, key_columns=frozenset({"user_id"}), message_key=("user_id",))


def decode(*values: bytes | None, source: fs.KafkaSource = SOURCE, keys: list[bytes | None] | None = None) -> Decoded:
    door = Door(source, DOOR.key_columns, DOOR.message_key)
    return JsonDecoder(door).decode(list(values), range(100, 100 + len(values)), NOW, keys or [])


def reasons(decoded: Decoded) -> list[str]:
    return [one.reason for one in decoded.rejections]


@pytest.mark.parametrize("name", BAD)
def test_a_bad_record_is_refused_with_its_reason(name: str) -> None:
    value, reason = BAD[name]

    decoded = decode(value)

    assert decoded.rows.num_rows == 0
    assert [one.row for one in decoded.rejections] == [0]
    assert reason in reasons(decoded)[0]
    assert reasons(decoded)[0].isprintable()
    assert 0 < len(reasons(decoded)[0]) <= 200


@pytest.mark.parametrize("name", ODD)
def test_an_odd_record_is_let_in_unchanged(name: str) -> None:
    value, expected = ODD[name]

    decoded = decode(value)

    assert reasons(decoded) == []
    [row] = decoded.rows.to_pylist()
    assert {column: row[column] for column in expected} == expected


def test_the_corpus_is_large() -> None:
    assert len(BAD) >= 200


def test_bad_records_do_not_touch_their_neighbours() -> None:
    values = [value for bad, _ in BAD.values() for value in (bad, GOOD)]

    decoded = decode(*values)

    assert decoded.rows["sequence"].to_pylist() == [101 + 2 * index for index in range(len(BAD))]
    assert [one.row for one in decoded.rejections] == [2 * index for index in range(len(BAD))]


def test_rows_have_the_landed_schema() -> None:
    decoded = decode(GOOD, b"x")

    assert decoded.rows.schema == landed_schema(SOURCE)
    assert decode(b"x").rows.schema == landed_schema(SOURCE)
    assert decode().rows.schema == landed_schema(SOURCE)


def test_undeclared_members_are_dropped_and_counted() -> None:
    decoded = decode(GOOD[:-1] + b', "a": 1, "b": {"c": 2}}', GOOD)

    assert decoded.rows.num_rows == 2
    assert decoded.unknown_members == 2


def test_undeclared_members_are_refused_where_the_source_says_so() -> None:
    source = fs.KafkaSource("things", timestamp="at", schema=SCHEMA, unknown_fields="reject")

    assert reasons(decode(GOOD[:-1] + b', "more": 1}', source=source)) == ["more: not declared"]


def test_a_tombstone_has_no_value() -> None:
    assert reasons(decode(None)) == ["no value"]


def test_times_are_kept_to_the_microsecond_in_utc() -> None:
    decoded = decode(
        with_value("at", '"2026-01-02T03:04:05.123456+02:00"'),
        with_value("at", '"2026-01-02 03:04:05z"'),
        with_value("at", '"1970-01-01T00:00:00Z"'),
        with_value("at", '"2026-01-02T03:04:05.123456789Z"'),
    )

    assert decoded.rows["event_timestamp"].to_pylist() == [
        datetime(2026, 1, 2, 1, 4, 5, 123456),  # noqa: DTZ001  # landed times have no zone: they are UTC
        datetime(2026, 1, 2, 3, 4, 5),  # noqa: DTZ001
        datetime(1970, 1, 1),  # noqa: DTZ001
        datetime(2026, 1, 2, 3, 4, 5, 123457),  # noqa: DTZ001
    ]


@pytest.mark.parametrize(("ahead_s", "let_in"), [(299.999999, True), (300, True), (300.000001, False)])
def test_events_may_be_five_minutes_ahead(ahead_s: float, let_in: bool) -> None:
    time = (NOW + timedelta(seconds=ahead_s)).isoformat()

    decoded = decode(with_value("at", f'"{time}"'))

    assert (decoded.rows.num_rows == 1) is let_in
    assert decoded.future == (not let_in)


@pytest.mark.parametrize(
    ("unit", "good", "bad"),
    [
        ("s", ["1767225600", "1767225600.25", "0"], ["-1", "7258118400", "1e400", '"1767225600"', "true"]),
        ("ms", ["1767225600250", "0"], ["1767225600250.0", "-1", "7258118400000", "9" * 30]),
        ("us", ["1767225600250000", "0"], ["-1", "7258118400000000", '"x"']),
    ],
)
def test_times_can_be_numbers(unit: str, good: list[str], bad: list[str]) -> None:
    source = fs.KafkaSource("things", timestamp="at", timestamp_format=unit, schema=SCHEMA)  # pyright: ignore[reportArgumentType]

    decoded = decode(*(with_value("at", text) for text in good), source=source)
    refused = decode(*(with_value("at", text) for text in bad), source=source)

    assert reasons(decoded) == []
    assert decoded.rows["event_timestamp"].to_pylist()[0].year in {1970, 2026}
    assert all(reason.startswith("at: ") for reason in reasons(refused))
    assert len(refused.rejections) == len(bad)


def test_seconds_keep_their_fraction() -> None:
    source = fs.KafkaSource("things", timestamp="at", timestamp_format="s", schema=SCHEMA)

    [time] = decode(with_value("at", "1767225600.123456"), source=source).rows["event_timestamp"].to_pylist()

    assert time == datetime(2026, 1, 1, 0, 0, 0, 123456)  # noqa: DTZ001


def test_a_kafka_key_is_the_text_of_the_records_own_key() -> None:
    keys = [b"1", None, b"01", b"2", b"", b"user-1", b"\xff"]

    decoded = decode(*[GOOD] * len(keys), keys=keys)

    assert [one.row for one in decoded.rejections] == [2, 3, 4, 5, 6]
    assert set(reasons(decoded)) == {"the Kafka key is not the text of user_id"}


def test_a_key_of_several_columns_is_joined_without_ambiguity() -> None:
    door = Door(SOURCE, key_columns=frozenset({"user_id", "name"}), message_key=("user_id", "name"))
    values = [with_value("name", '"a|b"'), with_value("name", '"a|b"'), with_value("name", '"11"')]

    decoded = JsonDecoder(door).decode(values, range(3), NOW, [b"1|a\\|b", b"1|a|b", b"1|11"])

    assert [one.row for one in decoded.rejections] == [1]


def test_any_kafka_key_will_do_where_several_entities_are_fed() -> None:
    decoded = JsonDecoder(Door(SOURCE)).decode([GOOD], [0], NOW, [b"whatever"])

    assert decoded.rows.num_rows == 1


def test_a_key_is_not_empty() -> None:
    door = Door(SOURCE, key_columns=frozenset({"name"}))

    decoded = JsonDecoder(door).decode([with_value("name", '""'), GOOD], [0, 1], NOW)

    assert reasons(decoded) == ["name: empty"]


def test_columns_may_have_the_names_of_python_words() -> None:
    source = fs.KafkaSource("things", timestamp="from", schema={"class": str, "def": int | None})
    value = b'{"class": "a", "def": 1, "from": "2026-01-02T03:04:05Z"}'

    [row] = JsonDecoder(Door(source)).decode([value], [0], NOW).rows.to_pylist()

    assert (row["class"], row["def"]) == ("a", 1)


@pytest.mark.parametrize(
    ("future", "records", "wrong"), [(19, 19, False), (20, 20, True), (20, 40, False), (21, 40, True), (0, 0, False)]
)
def test_the_own_clock_is_wrong_when_most_records_are_of_the_future(future: int, records: int, wrong: bool) -> None:
    assert clock_is_wrong(future, records) is wrong


@given(st.lists(st.binary(max_size=60) | st.just(GOOD) | st.none(), max_size=20))
def test_every_record_is_a_row_or_a_rejection(values: list[bytes | None]) -> None:
    decoded = decode(*values)

    places = [sequence - 100 for sequence in decoded.rows["sequence"].to_pylist()]
    assert sorted(places + [one.row for one in decoded.rejections]) == list(range(len(values)))
    assert places == sorted(places)


_SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just("2026-01-02T03:04:05Z")
)
_NAMES = st.sampled_from(["user_id", "name", "amount", "flag", "note", "limit", "at", "more", 'q"', "user_id "])


@given(st.lists(st.tuples(_NAMES, _SCALARS | st.lists(_SCALARS, max_size=2)), max_size=12))
def test_names_that_stand_twice_are_never_let_in(members: list[tuple[str, object]]) -> None:
    base = [("user_id", 1), ("name", "x"), ("amount", 1.5), ("flag", True), ("at", "2026-01-02T03:04:05Z")]
    text = ", ".join(f"{json.dumps(name)}: {json.dumps(value)}" for name, value in [*base, *members])

    decoded = decode(f"{{{text}}}".encode())

    if len({name for name, _ in [*base, *members]}) < len(base) + len(members):
        assert decoded.rows.num_rows == 0


@given(
    st.lists(
        st.tuples(
            st.integers(0, len(GOOD) - 1), st.sampled_from(["flip", "drop", "insert", "cut"]), st.integers(0, 255)
        ),
        min_size=1,
        max_size=4,
    )
)
def test_a_changed_record_is_refused_or_says_what_any_other_reader_finds(changes: list[tuple[int, str, int]]) -> None:
    data = bytearray(GOOD)
    for place, change, byte in changes:
        if change == "insert":
            data[place:place] = bytes([byte])
        elif place < len(data):
            data[place : {"flip": place + 1, "drop": place + 1, "cut": len(data)}[change]] = (
                bytes([data[place] ^ (byte or 1)]) if change == "flip" else b""
            )

    decoded = decode(bytes(data), GOOD)

    assert decoded.rows.num_rows + len(decoded.rejections) == 2
    assert decoded.rows["sequence"].to_pylist()[-1] == 101
    if not decoded.rejections:
        said, [row, _] = json.loads(bytes(data)), decoded.rows.to_pylist()
        assert {name: row[name] for name in ("user_id", "name", "amount", "flag")} == {
            name: said[name] for name in ("user_id", "name", "amount", "flag")
        }
        assert row["event_timestamp"].replace(tzinfo=UTC) == datetime.fromisoformat(said["at"])
