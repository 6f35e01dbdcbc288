"""Values of features on the wire: JSON and Arrow say the same, and what is wrong is named."""

import json
from datetime import UTC, datetime
from typing import Any

import msgspec
import pyarrow as pa
import pytest

from featurestore.database.feature_jobs import FeatureJob, Value
from featurestore.database.wire import decode, job_id_of, reply_key_of, to_ipc
from featurestore.errors import JobRefusedError

AT = "2026-01-31T12:00:00.5Z"
TIME = datetime(2026, 1, 31, 12, 0, 0, 500_000, tzinfo=UTC)
ENTRY = {"entity_id": "1", "feature_name": "risk", "value": 0.5, "event_timestamp": AT}


def written(**members: Any) -> dict[bytes, bytes]:
    return {b"json": json.dumps({"table": "features", "data": ENTRY, **members}).encode()}


def test_one_value_or_several() -> None:
    one = Value("1", "risk", 0.5, TIME)
    assert decode(written(job_id="a")) == FeatureJob("a", (one,))
    several = [{**ENTRY, "value": value} for value in (1, "x", True, None)]
    assert decode(written(job_id="a", data=several)) == FeatureJob(
        "a", tuple(one._replace(value=value) for value in (1, "x", True, None))
    )


def test_a_job_without_an_id_is_named_by_what_it_says() -> None:
    names = [
        decode(written(data=data)).job_id  # type: ignore[union-attr]
        for data in (ENTRY, [ENTRY], {**ENTRY, "event_timestamp": "2026-01-31T13:00:00.5+01:00"}, {**ENTRY, "value": 1})
    ]
    assert names[0] == names[1] == names[2] != names[3]


def test_the_same_in_arrow() -> None:
    columns = {
        "entity_id": ["1", "2"],
        "feature_name": ["risk", "risk"],
        "value": [0.5, None],
        "event_timestamp": pa.array([TIME, TIME], pa.timestamp("ns", "UTC")),
    }
    fields = {b"kind": b"features", b"header": b'{"job_id": "a"}', b"rows": to_ipc(pa.table(columns))}
    assert decode(fields) == FeatureJob("a", (Value("1", "risk", 0.5, TIME), Value("2", "risk", None, TIME)))
    for wrong, reason in (
        ({"value": [[1], [2]]}, "column 'value' cannot be list"),
        ({"entity_id": [1, 2]}, "column 'entity_id' cannot be int64"),
        ({"entity_id": ["1", None]}, "column 'entity_id' has NULLs"),
        (
            {"event_timestamp": pa.array([TIME, TIME], pa.timestamp("us"))},
            r"'event_timestamp' cannot be timestamp\[us\]",
        ),
    ):
        with pytest.raises(JobRefusedError, match=reason):
            decode({**fields, b"rows": to_ipc(pa.table({**columns, **wrong}))})
    with pytest.raises(JobRefusedError, match="column 'value' is missing"):
        decode({**fields, b"rows": to_ipc(pa.table(columns).drop_columns(["value"]))})


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "json: "),
        (b"[]", "json: Expected `object`"),
        (b"\xff", "json: "),
        (b'{"table": "applied", "data": []}', "json: Invalid enum value 'applied'"),
        (b'{"table": "features", "data": []}', "data: there is no value in it"),
        (json.dumps({"table": "features", "data": ENTRY, "sql": "DROP TABLE applied"}).encode(), "unknown field `sql`"),
        (json.dumps({"table": "features", "data": {**ENTRY, "value": [1]}}).encode(), r"\$.data.value"),
        (
            json.dumps({"table": "features", "data": {**ENTRY, "event_timestamp": "2026-01-31T12:00:00"}}).encode(),
            "json: ",
        ),
        (
            msgspec.json.encode({"table": "features", "data": ENTRY})[:-2] + b', "value": 9}}',
            "'value' stands there twice",
        ),
        (b'{"table": "features", "data": ' + b"[" * 100_000, "json: "),
    ],
)
def test_what_is_no_write_is_refused(data: bytes, reason: str) -> None:
    with pytest.raises(JobRefusedError, match=reason):
        decode({b"json": data})


def test_replies_find_their_way_also_to_what_is_no_write() -> None:
    fields = {b"json": b'{"table": "other", "job_id": "a", "response_key": "duckdb_reply:x"}'}
    assert (job_id_of(fields), reply_key_of(fields)) == ("a", b"duckdb_reply:x")
    assert (job_id_of({b"json": b"{"}), reply_key_of({b"json": b"{"})) == ("", b"")
