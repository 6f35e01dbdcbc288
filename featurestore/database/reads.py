"""Read requests and their replies: plain values, and their form on the wire.

A request is JSON: {"query" or "name", "params", "response_key", "format": "json" | "arrow", "client", "timeout_s",
"token"}; only the SQL, or the name of a declared query, and the response key must be there. Parameters are JSON values,
{"timestamp": "2026-01-31T12:00:00Z"} or {"base64": "…"}, by name ($name) or as a list (?). A reply is an Arrow IPC
stream or {"data": [{…}, …]}; a failure is always {"error": "…"}, with "retry": true when the query is not to blame.
"""

import base64
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal, cast

import msgspec
import pyarrow as pa
import pyarrow.compute
import pyarrow.ipc as ipc

from featurestore.errors import QueryError, TransientError

pc: Any = pyarrow.compute  # the stubs do not know that kernels take chunked arrays too

Scalar = str | int | float | bool | bytes | datetime | None
Value = Scalar | Sequence[Scalar]
Params = Mapping[str, Value] | Sequence[Value]
Format = Literal["json", "arrow"]

_JSON_ROWS = 16_384  # encoded at a time
_NOT_FINITE = {math.inf: "Infinity", -math.inf: "-Infinity"}
_encoder = msgspec.json.Encoder(decimal_format="number", enc_hook=str)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadRequest:
    """A query (its SQL, or the name of a declared one) and where its reply goes; `client` is whom to be fair to."""

    response_key: str
    query: str = ""
    name: str = ""
    token: str = field(default="", repr=False)  # asked of those who send SQL, where the service has one
    params: dict[str, Any] | list[Any] = field(default_factory=dict[str, Any])
    format: Format = "json"
    client: str = ""
    timeout_s: float = 0.0  # 0 = as long as the service allows

    def __post_init__(self) -> None:
        if bool(self.query) == bool(self.name):
            raise ValueError("give either `query` or `name`")

    def to_json(self) -> bytes:
        return msgspec.json.encode(self)

    @classmethod
    def from_json(cls, data: bytes) -> "ReadRequest":
        """Raises QueryError when it is not a request."""
        try:
            return msgspec.json.decode(data, type=cls)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise QueryError(f"not a read request: {error}") from error


def response_key_of(data: bytes) -> str:
    """Where the reply to something goes that is no request, as far as it can be read."""
    try:
        return str(msgspec.json.decode(data, type=dict[str, Any]).get("response_key", ""))
    except (msgspec.DecodeError, UnicodeDecodeError):
        return ""


def params_to_wire(params: Params | None) -> dict[str, Any] | list[Any]:
    """Raises QueryError for a time without a zone."""
    if isinstance(params, Mapping):
        return {name: _to_wire(value) for name, value in params.items()}
    return [_to_wire(value) for value in params or ()] or {}


def params_from_wire(params: dict[str, Any] | list[Any]) -> Params:
    """Raises QueryError for a value that is none of the wire's."""
    if isinstance(params, dict):
        return {name: _from_wire(value) for name, value in params.items()}
    return [_from_wire(value) for value in params]


def _to_wire(value: Value) -> object:
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise QueryError(f"{value} has no time zone; give an aware datetime")
        return {"timestamp": value.astimezone(UTC).isoformat()}
    if isinstance(value, bytes):
        return {"base64": base64.b64encode(value).decode()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_to_wire(one) for one in value]
    return value


def _from_wire(value: object) -> Any:
    if isinstance(value, list):
        return [_from_wire(one) for one in cast("list[object]", value)]
    if not isinstance(value, dict):
        return value
    try:
        match cast("dict[str, str]", value):
            case {"timestamp": text}:
                return datetime.fromisoformat(text)
            case {"base64": text}:
                return base64.b64decode(text, validate=True)
            case other:
                raise QueryError(f"parameter {other} is neither a JSON scalar nor a timestamp nor base64")
    except (TypeError, ValueError) as error:
        raise QueryError(f"parameter {value}: {error}") from error


def error_reply(message: str, *, retry: bool = False) -> bytes:
    """With `retry` the query itself is not to blame."""
    return msgspec.json.encode({"error": message, "retry": True} if retry else {"error": message})


def data_reply(table: pa.Table, form: Format) -> bytes:
    """The whole result; times are UTC."""
    return _to_json(table) if form == "json" else _to_arrow(table)


def table_of(reply: bytes) -> pa.Table:
    """The table of an Arrow reply.

    Raises:
        QueryError: the service refused or failed the query; the message is its reason.
        TransientError: the service has too much to do.
    """
    if reply.startswith(b"{"):
        said = msgspec.json.decode(reply, type=dict[str, Any])
        raise (TransientError if said.get("retry") else QueryError)(str(said.get("error", "no reason given")))
    return ipc.open_stream(reply).read_all()


def spelled(value: Any) -> Any:
    """A value with texts in place of what JSON has no number for: NaN, Infinity, -Infinity."""
    if isinstance(value, float):
        return value if math.isfinite(value) else _NOT_FINITE.get(value, "NaN")
    if isinstance(value, Mapping):
        return {name: spelled(one) for name, one in cast("Mapping[Any, Any]", value).items()}
    if isinstance(value, list | tuple):
        return [spelled(one) for one in cast("Sequence[Any]", value)]
    return value


def with_utc(table: pa.Table) -> pa.Table:
    """TIMESTAMP columns are UTC without saying so; say it. Sums of integers come as decimals; make them integers."""
    columns = [_with_utc(column) for column in table.columns]
    return pa.Table.from_arrays(columns, names=table.column_names)


def _with_utc(column: pa.ChunkedArray) -> pa.ChunkedArray:
    if pa.types.is_timestamp(column.type):
        return column.cast(pa.timestamp(column.type.unit, tz="UTC"))
    if pa.types.is_decimal(column.type) and column.type.scale == 0:
        try:
            return column.cast(pa.int64())
        except pa.ArrowInvalid:
            return column  # larger than 64 bits
    return column


def _to_arrow(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    compression = "lz4" if table.nbytes > 2**20 else None
    with ipc.new_stream(sink, table.schema, options=ipc.IpcWriteOptions(compression=compression)) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def _to_json(table: pa.Table) -> bytes:
    may_lose = any(map(_may_lose, table.columns))
    parts = [
        _encoder.encode(spelled(rows) if may_lose else rows)[1:-1]
        for batch in with_utc(table).to_batches(max_chunksize=_JSON_ROWS)
        if (rows := pa.Table.from_batches([batch]).to_pylist())
    ]
    return b'{"data":[' + b",".join(parts) + b"]}"


def _may_lose(column: pa.ChunkedArray) -> bool:
    """Whether JSON may have no number for a value of it."""
    if pa.types.is_floating(column.type):
        return pc.all(pc.is_finite(column)).as_py() is False
    return pa.types.is_nested(column.type)
