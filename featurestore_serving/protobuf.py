"""Requests and replies as Protocol Buffers.

Columns of replies are written in the wire form by hand, which takes a third of the time of making their messages. What
is serialized piece by piece and put together is one message: of a repeated field all pieces stay, in order.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from struct import Struct
from typing import Any, TypeVar

from google.protobuf.message import DecodeError, Message

from featurestore.definitions.dtypes import ScalarType
from featurestore.online.values import OnlineValue, Scalar
from featurestore.online.values import Status as State
from featurestore_serving.features import Answer, FeatureRequest
from featurestore_serving.pb import serving_pb2 as pb
from featurestore_serving.refusals import Reason, RefusedError
from featurestore_serving.scores import ScoreAnswer, ScoreRequest

Body = TypeVar("Body", bound=Message)
_Time = tuple[State, datetime | None]  # what is known of a value, and of when

_STATUS: Mapping[str, pb.Status] = {
    State.PRESENT: pb.STATUS_PRESENT,
    State.NULL: pb.STATUS_NULL,
    State.MISSING: pb.STATUS_MISSING,
    State.EXPIRED: pb.STATUS_EXPIRED,
}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def feature_request(body: bytes) -> FeatureRequest:
    """Read a request. Raises as `_parsed` and `_key_values` do."""
    request = _parsed(pb.GetFeaturesRequest, body)
    return FeatureRequest(
        features=list(request.features),
        model=request.model,
        keys={name: _key_values(name, column) for name, column in request.keys.items()},
        request={name: [_scalar(value) for value in column.values] for name, column in request.request.items()},
    )


def score_request(body: bytes) -> ScoreRequest:
    """Read a request. Raises as `_parsed` and `_key_values` do."""
    request = _parsed(pb.ScoreRequest, body)
    return ScoreRequest(
        model=request.model,
        keys={name: _key_values(name, column) for name, column in request.keys.items()},
        request={name: [_scalar(value) for value in column.values] for name, column in request.request.items()},
    )


def features_reply(answer: Answer) -> bytes:
    """A GetFeaturesResponse."""
    return pb.GetFeaturesResponse(features=answer.names).SerializeToString() + _columns(_OF_FEATURES, answer)


def score_reply(answer: ScoreAnswer) -> bytes:
    """A ScoreResponse."""
    head = pb.ScoreResponse(
        model=answer.model,
        version=answer.version,
        scores=[math.nan if score is None else score for score in answer.scores],
        reasons=[reason or "" for reason in answer.reasons],
        features=answer.read.names,
    )
    return head.SerializeToString() + _columns(_OF_SCORES, answer.read)


def _parsed(kind: type[Body], body: bytes) -> Body:
    """Raises: RefusedError: MALFORMED."""
    try:
        return kind.FromString(body)
    except DecodeError as error:
        raise RefusedError(Reason.MALFORMED, f"the request is not a {kind.DESCRIPTOR.name}: {error}") from error


def _key_values(name: str, column: pb.KeyColumn) -> Sequence[int] | Sequence[str]:
    """Raises: RefusedError: it has no values."""
    kind = column.WhichOneof("values")
    if kind == "integers":
        return list(column.integers.values)
    if kind == "texts":
        return list(column.texts.values)
    raise RefusedError(Reason.INVALID, f"key column {name!r} has neither integers nor texts")


def _scalar(value: pb.Value) -> Scalar | None:
    kind = value.WhichOneof("kind")
    return None if kind is None else getattr(value, kind)


# ---- the wire form


def _tag(field: Any) -> bytes:  # a field's descriptor, which has no type
    """What a field with a length begins with; all of these have numbers below 16."""
    return bytes([field.number << 3 | 2])


@lru_cache(2**14)
def _varint(number: int) -> bytes:
    number &= 2**64 - 1  # negative ones stand in two's complement
    digits = bytearray()
    while number > 0x7F:
        digits.append(number & 0x7F | 0x80)
        number >>= 7
    digits.append(number)
    return bytes(digits)


def _text(value: str) -> bytes:
    encoded = value.encode()
    return _VALUES + _varint(len(encoded)) + encoded


_OF_FEATURES = _tag(pb.GetFeaturesResponse.DESCRIPTOR.fields_by_name["columns"])
_OF_SCORES = _tag(pb.ScoreResponse.DESCRIPTOR.fields_by_name["columns"])
_VALUES = _tag(pb.Numbers.DESCRIPTOR.fields_by_name["values"])  # the same in Integers, Texts and Truths
_MEMBER: Mapping[ScalarType, bytes] = {
    dtype: _tag(pb.FeatureColumn.DESCRIPTOR.fields_by_name[name])
    for dtype, name in ((float, "numbers"), (int, "integers"), (str, "texts"), (bool, "truths"))
}
_WRITE: Mapping[ScalarType, Callable[[Any], bytes]] = {
    float: Struct("<d").pack,
    int: _varint,
    str: _text,
    bool: _varint,
}


def _columns(tag: bytes, answer: Answer) -> bytes:
    """A FeatureColumn per feature, as members of a field."""
    known = _Known()
    parts: list[bytes] = []
    for name, dtype in zip(answer.names, answer.dtypes, strict=True):
        write, empty = _WRITE[dtype], dtype()
        values: list[bytes] = []
        times: list[_Time] = []
        for row in answer.rows:
            one: OnlineValue = row[name]
            values.append(write(empty if one.value is None else one.value))
            times.append((one.status, one.event_timestamp))
        written, rest = b"".join(values), known[tuple(times)]
        parts += (_head(tag, dtype, len(written), len(rest)), written, rest)
    return b"".join(parts)


@lru_cache(2**12)
def _head(tag: bytes, dtype: ScalarType, values_bytes: int, rest_bytes: int) -> bytes:
    """What stands before the values of a column: the column, the list of its type, and the values open."""
    # Texts are not packed: each brings its own tag.
    values = b"" if dtype is str else _VALUES + _varint(values_bytes)
    member = _MEMBER[dtype] + _varint(len(values) + values_bytes) + values
    return tag + _varint(len(member) + values_bytes + rest_bytes) + member


class _Known(dict[tuple[_Time, ...], bytes]):
    """What a column says besides values; the same for all features of one view."""

    def __missing__(self, times: tuple[_Time, ...]) -> bytes:
        column = pb.FeatureColumn(
            statuses=[_STATUS[status] for status, _ in times],
            event_timestamps_us=[0 if time is None else (time - _EPOCH) // _MICROSECOND for _, time in times],
        )
        self[times] = found = column.SerializeToString()
        return found
