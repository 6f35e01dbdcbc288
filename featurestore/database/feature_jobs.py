"""Jobs that write values of features, as services in any language send them; see docs/database.md.

JSON, in the one field `json` of the stream entry:
    {"table": "features", "data": {…} or [{…}, …], "job_id": "…", "response_key": "…"}
or Arrow, as the other jobs: `kind` "features", `header` {"job_id": "…"}, `rows` an IPC stream, `reply`.
A value is {"entity_id", "feature_name", "value", "event_timestamp"}, in Arrow a row with these columns.
"""

import hashlib
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

import msgspec
import pyarrow as pa
from msgspec import Meta

from featurestore.errors import JobRefusedError

JSON = b"json"


class Value(NamedTuple):
    """What a feature of an entity was at a time (an aware one)."""

    entity_id: str
    feature_name: str
    value: str | int | float | bool | None
    event_timestamp: datetime


@dataclass(frozen=True, slots=True)
class FeatureJob:
    """Values to be landed in the sources of their features, once for each id."""

    kind: ClassVar[str] = "features"
    job_id: str
    values: tuple[Value, ...]


class _Entry(msgspec.Struct):
    """A value in JSON; what else stands there is dropped."""

    entity_id: str
    feature_name: str
    value: str | int | float | bool | None
    event_timestamp: Annotated[datetime, Meta(tz=True)]


class _Write(msgspec.Struct, forbid_unknown_fields=True):
    table: Literal["features"]
    data: _Entry | list[_Entry]
    job_id: str = ""
    response_key: str = ""


def from_json(data: bytes) -> FeatureJob:
    """Raises JobRefusedError when it is not a write; the message names the member."""
    try:
        write = msgspec.json.decode(data, type=_Write)
        json.loads(data, object_pairs_hook=_each_name_once)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, _RepeatedError) as error:
        raise JobRefusedError(f"json: {error}") from error
    entries = write.data if isinstance(write.data, list) else [write.data]
    return _job(
        write.job_id,
        [Value(e.entity_id, e.feature_name, e.value, e.event_timestamp.astimezone(UTC)) for e in entries],
    )


def from_table(job_id: str, table: pa.Table) -> FeatureJob:
    """Raises JobRefusedError when a column is missing or of another type, or a time is."""
    for name, is_right in _COLUMNS.items():
        if name not in table.column_names:
            raise JobRefusedError(f"rows: column {name!r} is missing")
        if not is_right(table.schema.field(name).type):
            raise JobRefusedError(f"rows: column {name!r} cannot be {table.schema.field(name).type}")
        if name != "value" and table[name].null_count:
            raise JobRefusedError(f"rows: column {name!r} has NULLs; it must have none")
    utc: Any = table.set_column(
        table.column_names.index("event_timestamp"),
        "event_timestamp",
        table["event_timestamp"].cast(pa.timestamp("us", "UTC")),
    )
    return _job(job_id, [Value(**row) for row in utc.select(Value._fields).to_pylist()])


def routing(data: bytes) -> tuple[str, str]:
    """(job_id, response_key) as far as they can be read; for replies to what is no job."""
    try:
        write = msgspec.json.decode(data, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return "", ""
    return str(write.get("job_id", "")), str(write.get("response_key", ""))


def _job(job_id: str, values: list[Value]) -> FeatureJob:
    if not values:
        raise JobRefusedError("data: there is no value in it")
    # Without a name of its own, a job is named by what it says: sent again, it is the same one.
    name = job_id or "sha256-" + hashlib.sha256(msgspec.json.encode(values)).hexdigest()
    return FeatureJob(name, tuple(values))


class _RepeatedError(Exception):
    pass


def _each_name_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        raise _RepeatedError(f"{next(name for name in names if names.count(name) > 1)!r} stands there twice")
    return found


def _is_text(dtype: pa.DataType) -> bool:
    return pa.types.is_string(dtype) or pa.types.is_large_string(dtype)


def _is_scalar(dtype: pa.DataType) -> bool:
    types = pa.types
    return _is_text(dtype) or any(of(dtype) for of in (types.is_integer, types.is_floating, types.is_boolean))


_COLUMNS = {
    "entity_id": _is_text,
    "feature_name": _is_text,
    "value": _is_scalar,
    "event_timestamp": lambda dtype: pa.types.is_timestamp(dtype) and dtype.tz is not None,
}
