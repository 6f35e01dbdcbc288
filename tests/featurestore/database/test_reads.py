"""The wire form of reads: requests, parameters, results."""

import json
from datetime import UTC, datetime, timedelta, timezone

import pyarrow as pa
import pytest

from featurestore.database.reads import (
    ReadRequest,
    data_reply,
    error_reply,
    params_from_wire,
    params_to_wire,
    response_key_of,
    table_of,
)
from featurestore.errors import QueryError

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)


def test_the_smallest_request_is_a_query_and_a_key() -> None:
    request = ReadRequest.from_json(b'{"query": "SELECT 1", "response_key": "duckdb_reply:x"}')
    assert (request.format, request.params, request.timeout_s) == ("json", {}, 0.0)
    assert ReadRequest.from_json(request.to_json()) == request


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"{}",
        b"\xff",
        b'{"query": 1, "response_key": "x"}',
        b'{"query": "", "response_key": "x", "format": "xml"}',
    ],
)
def test_what_is_no_request_is_refused(data: bytes) -> None:
    with pytest.raises(QueryError, match="not a read request"):
        ReadRequest.from_json(data)


def test_the_response_key_is_found_where_it_can_be() -> None:
    assert response_key_of(b'{"query": 1, "response_key": "duckdb_reply:x"}') == "duckdb_reply:x"
    assert response_key_of(b"[]") == response_key_of(b"\xff") == response_key_of(b"{}") == ""


def test_parameters_survive_the_wire() -> None:
    params = {"a": "x", "b": 1, "c": 0.5, "d": True, "e": None, "f": NOON, "g": b"\x00\xff", "h": ["x", NOON]}
    wire = json.loads(json.dumps(params_to_wire(params)))
    assert wire["f"] == {"timestamp": "2026-01-31T12:00:00+00:00"}
    assert params_from_wire(wire) == params
    assert params_from_wire(json.loads(json.dumps(params_to_wire([1, NOON])))) == [1, NOON]
    assert params_to_wire(None) == params_to_wire([]) == {}
    berlin = NOON.astimezone(timezone(timedelta(hours=1)))
    assert params_to_wire({"f": berlin}) == params_to_wire({"f": NOON})
    with pytest.raises(QueryError, match="no time zone"):
        params_to_wire({"f": NOON.replace(tzinfo=None)})


@pytest.mark.parametrize("value", [{"x": 1}, {"timestamp": 5}, {"timestamp": "noon"}, {"base64": "!"}, {}])
def test_other_parameters_are_refused(value: object) -> None:
    with pytest.raises(QueryError, match="parameter"):
        params_from_wire({"a": value})


TABLE = pa.table(
    {
        "at": pa.array([NOON, None], pa.timestamp("us")),
        "n": pa.array([2**60, None], pa.decimal128(38, 0)),
        "x": [0.1, float("nan")],
        "s": ["é\n", None],
        "list": [[1.5, float("-inf")], None],
    }
)


def test_json_is_for_every_language() -> None:
    assert json.loads(data_reply(TABLE, "json")) == {
        "data": [
            {"at": "2026-01-31T12:00:00Z", "n": 2**60, "x": 0.1, "s": "é\n", "list": [1.5, "-Infinity"]},
            {"at": None, "n": None, "x": "NaN", "s": None, "list": None},
        ]
    }
    assert data_reply(TABLE.slice(0, 0), "json") == b'{"data":[]}'
    assert data_reply(pa.table({"x": [0.5, None]}), "json") == b'{"data":[{"x":0.5},{"x":null}]}'
    many = pa.table({"a": list(range(40_000))})
    assert [row["a"] for row in json.loads(data_reply(many, "json"))["data"]] == list(range(40_000))


def test_arrow_is_whole() -> None:
    for table in (TABLE.drop_columns(["x"]), TABLE.slice(0, 0), pa.table({"a": list(range(300_000))})):
        assert table_of(data_reply(table, "arrow")).equals(table)


def test_an_error_is_raised_with_its_reason() -> None:
    with pytest.raises(QueryError, match="no such table"):
        table_of(error_reply("no such table"))
