"""The kernel equals the brute-force reference, to the bit, on random logs and spines."""

import math
import struct
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import featurestore as fs
from featurestore.definitions.dtypes import arrow_type
from featurestore.offline import held
from featurestore.offline.held import Held
from featurestore.testing.reference import KnownAt as Known
from featurestore.testing.reference import value_at
from featurestore.training import timeline
from featurestore.training.kernel import Join
from featurestore.training.pit_plan import KnownAt, plan_reads
from featurestore.training.spine import read_spine

START = datetime(2026, 5, 4, tzinfo=UTC)
US, SECOND, HOUR = timedelta(microseconds=1), timedelta(seconds=1), timedelta(hours=1)

USER = fs.Entity("user", key="user_id")
EVENTS = fs.KafkaSource(
    "events",
    timestamp="timestamp",
    schema={"user_id": int, "x": float | None, "n": int | None, "b": bool | None, "s": str | None},
)
FUNCTIONS = ("count", "sum", "mean", "min", "max", "first", "last")
VIEW = fs.FeatureView(
    "activity",
    USER,
    EVENTS,
    [
        fs.Feature("x", float, max_age="10s"),
        fs.Feature("s", str),
        fs.Feature("aged", int, "n", max_age="30s"),
        *(fs.Aggregation(f"x_{function}", function, "x", windows=("24s", "48s")) for function in FUNCTIONS),
        *(fs.Aggregation(f"n_{one}", one, "n", windows=("24s", "2m"), dtype=int) for one in FUNCTIONS),
        *(fs.Aggregation(f"s_{one}", one, "s", windows=("24s",), dtype=str) for one in ("min", "max", "first", "last")),
        *(
            fs.Aggregation(f"b_{one}", one, "b", windows=("24s",), dtype=bool)
            for one in ("min", "max", "first", "last")
        ),
    ],
)
PROJECT = fs.Project((VIEW,))

# Few entities and seconds, so that windows are full, and much happens on the edges of hops (1 s and 5 s), of windows
# and of ages, or a microsecond beside them.
TIMES = st.builds(
    lambda seconds, beside: START + seconds * SECOND + beside,
    st.integers(0, 40),
    st.sampled_from([0 * US, 0 * US, US, -US, SECOND / 2]),
)
FLOATS = st.sampled_from([0.1, 0.2, 0.3, 0.7, 1e16, -1e16, 3.3, -7.7, math.nan, math.inf, -math.inf, 0.0, -0.0])
OPTIONAL = {
    "x": st.none() | FLOATS,
    "n": st.none() | st.integers(-3, 3) | st.integers(-(2**57), 2**57),
    "b": st.none() | st.booleans(),
    "s": st.none() | st.sampled_from(["", "a", "B", "é", "\U0001f600", "￿", "z" * 70]),
}


@st.composite
def log_rows(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Rows of the log in the order of their arrival; late, restated and tied ones are as likely as others."""
    rows: list[dict[str, Any]] = []
    for number in range(draw(st.integers(0, 30))):
        before = draw(st.none() | st.sampled_from(rows)) if rows else None
        happened = before["event_timestamp"] if before else draw(TIMES)
        late = draw(st.sampled_from([0, 0, 1, 5, 20]))
        values = {name: draw(values) for name, values in OPTIONAL.items()}
        inputs = {"aged": values["n"], **values}
        for declared in VIEW.features:
            if isinstance(declared, fs.Aggregation):
                inputs[declared.name] = values[declared.name[0]]
                if declared.function == "count" and values[declared.name[0]] is not None:
                    inputs[declared.name] = True
        rows.append(
            {
                "entity_id": before["entity_id"] if before else draw(st.sampled_from(["1", "1", "30"])),
                "event_timestamp": happened,
                "created_at": happened + late * SECOND,
                "sequence": draw(st.integers(0, 2)),
                "tie": number * 7 % 41,  # no two rows are equal in the total order
                **inputs,
            }
        )
    return rows


@st.composite
def cases(draw: st.DrawFn) -> tuple[list[dict[str, Any]], list[tuple[int, datetime]]]:
    """A log and a spine; many of its times are those at which something changes."""
    rows = draw(log_rows())
    spine: list[tuple[int, datetime]] = []
    for _ in range(draw(st.integers(0, 15))):
        user, time = draw(st.sampled_from([1, 1, 1, 30, 4])), draw(TIMES)
        if rows and draw(st.booleans()):
            row = draw(st.sampled_from(rows))
            time = row[draw(st.sampled_from(["event_timestamp", "created_at"]))]
            time += (
                draw(st.sampled_from([0, 0, 1, 10, 24, 25, 30])) * SECOND + draw(st.sampled_from([0, 0, 1, -1])) * US
            )
        spine.append((user, time))
    return rows, spine


KNOWN: st.SearchStrategy[tuple[Known, timedelta]] = st.one_of(
    st.just((None, 0 * US)),
    st.tuples(TIMES, st.just(0 * US)),
    st.tuples(st.just("row"), st.sampled_from([0 * US, US, SECOND])),
)


def log_table(rows: Sequence[dict[str, Any]], chunks: int = 1) -> pa.Table:
    """The log as it is read, in several chunks."""
    micros = pa.timestamp("us", "UTC")
    fields = [("entity_id", pa.string()), ("event_timestamp", micros), ("created_at", micros)]
    fields += [("sequence", pa.int64()), ("tie", pa.int64())]
    fields += [(column.name, arrow_type(column.dtype)) for column in VIEW.columns]
    schema = pa.schema([pa.field(*one) for one in fields])
    step = max(1, len(rows) // chunks)
    pieces = [pa.Table.from_pylist(list(rows[at : at + step]), schema) for at in range(0, len(rows), step)]
    return pa.concat_tables([schema.empty_table(), *pieces])


def spine_table(spine: Sequence[tuple[int, datetime]]) -> pa.Table:
    return pa.table(
        {
            "user_id": pa.array([user for user, _ in spine], pa.int64()),
            "event_timestamp": pa.array([time for _, time in spine], pa.timestamp("us", "UTC")),
        }
    )


def bits(value: Any) -> Any:
    """Equal exactly for values that are the same; every NaN is one value, and so are the zeros of min and max."""
    if isinstance(value, float):
        return "nan" if math.isnan(value) else struct.pack(">d", value + 0.0)
    return value


@settings(max_examples=120, deadline=None)
@given(cases(), KNOWN, st.sampled_from([63, 20]), st.sampled_from([1, 10**9]), st.sampled_from([1, 3, 10**6]))
@example(([], [(1, START)]), (None, 0 * US), 63, 1, 1)
@example(([], []), ("row", 0 * US), 20, 1, 1)
def test_the_kernel_equals_the_reference(
    case: tuple[list[dict[str, Any]], list[tuple[int, datetime]]],
    known: tuple[Known, timedelta],
    key_bits: int,
    memory_bytes: int,
    piece: int,
) -> None:
    """With 20 bits for entity and time, distances in time do not fit, as with many entities over many years.

    It is the same from one thread and from several, which take pieces of the rows; of the whole log, and of one that
    comes in two pieces of which only what can matter is kept, in memory or on disk.
    """
    (rows, spine), (known_at, delay) = case, known
    plan = plan_reads(PROJECT, [VIEW], KnownAt.of(known_at, delay))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(timeline, "_KEY_BITS", key_bits)
        patched.setattr(timeline, "_PIECE", piece)
        patched.setattr(held, "_THIN_BYTES", -1)
        patched.setattr(held, "_MEMORY_BYTES", memory_bytes)
        join = Join(plan, read_spine(spine_table(spine), plan.keys))
        kept = join.held(plan.views[0])
        kept.add([log_table(rows[::2]), log_table(rows[1::2])])
        whole, thinned = (
            join.columns({VIEW.target: log}, lambda *_: None) for log in (Held.of(log_table(rows, 3)), kept)
        )
    for target, name in plan.features:
        wanted = [value_at(VIEW, name, rows, str(user), time, known_at=known_at, delay=delay) for user, time in spine]
        for found in (whole, thinned):
            assert list(map(bits, found[target, name].to_pylist())) == list(map(bits, wanted)), name


@settings(max_examples=50, deadline=None)
@given(cases(), KNOWN)
def test_what_cannot_matter_is_left_out(
    case: tuple[list[dict[str, Any]], list[tuple[int, datetime]]], known: tuple[Known, timedelta]
) -> None:
    """Of newest rows there is one for each of the spine's at most; of windows, those that one covers."""
    (rows, spine), (known_at, delay) = case, known
    known_by = KnownAt.of(known_at, delay)

    def left(name: str) -> list[dict[str, Any]]:
        plan = plan_reads(PROJECT, [VIEW[name]], known_by)
        join = Join(plan, read_spine(spine_table(spine), plan.keys))
        return join.thin(plan.views[0], log_table(rows)).to_pylist()

    assert len(left("s")) <= len(spine)
    for row in left("n_count_24s"):
        ages = [time - row["event_timestamp"] for user, time in spine if str(user) == row["entity_id"]]
        assert any(0 * US <= age < 25 * SECOND for age in ages)
