"""Requests and replies as JSON."""

import json
import math
from collections.abc import Callable, Sequence
from typing import TypeVar

import msgspec

from featurestore.online.values import OnlineValue, Status
from featurestore.store import OnlineRow
from featurestore_serving.features import Answer, FeatureRequest
from featurestore_serving.refusals import Reason, RefusedError
from featurestore_serving.scores import ScoreAnswer, ScoreRequest

# JSON has no NaN and no infinity; these are the texts that Protocol Buffers use for them in JSON.
_NOT_FINITE = {math.inf: "Infinity", -math.inf: "-Infinity"}
# How msgspec writes a number that is not finite; inside a text the quotes would stand behind backslashes.
_LOST = b'"value":null,"status":"PRESENT"'


Body = TypeVar("Body")


class _Body(msgspec.Struct, forbid_unknown_fields=True):
    keys: dict[str, list[int | float | str | bool]] = {}
    features: list[str] = []
    model: str = ""
    request: dict[str, list[int | float | str | bool | None]] = {}


class _ScoreBody(msgspec.Struct, forbid_unknown_fields=True):
    model: str
    keys: dict[str, list[int | float | str | bool]] = {}
    request: dict[str, list[int | float | str | bool | None]] = {}


_decode_body = msgspec.json.Decoder(_Body).decode
_decode_score = msgspec.json.Decoder(_ScoreBody).decode
_encode = msgspec.json.Encoder().encode


def parse(body: bytes) -> FeatureRequest:
    """Read a request. Raises as `decoded` does."""
    found = decoded(_decode_body, body)
    return FeatureRequest(features=found.features, model=found.model, keys=found.keys, request=found.request)


def parse_score(body: bytes) -> ScoreRequest:
    """Read a request. Raises as `decoded` does."""
    found = decoded(_decode_score, body)
    return ScoreRequest(model=found.model, keys=found.keys, request=found.request)


def decoded(decode: Callable[[bytes], Body], body: bytes) -> Body:
    """What a decoder makes of a body.

    Raises:
        RefusedError: MALFORMED if it is not JSON, INVALID if a member has another name or type, or comes twice.
    """
    try:
        found = decode(body)
        json.loads(body.decode(), object_pairs_hook=_once, parse_int=str)  # of two members, msgspec takes the last
    except msgspec.ValidationError as error:
        raise RefusedError(Reason.INVALID, str(error)) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RefusedError(Reason.MALFORMED, f"the body is not JSON in UTF-8: {error}") from error
    except RecursionError as error:
        raise RefusedError(Reason.MALFORMED, "the body is nested too deeply") from error
    return found


def _once(members: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(members)
    if len(found) < len(members):
        names = [name for name, _ in members]
        name = next(name for name in names if names.count(name) > 1)
        raise RefusedError(Reason.INVALID, f"member {name[:100]!r} stands twice in one object")
    return found


def render(answer: Answer) -> bytes:
    """Write a reply; the rows are objects by feature name."""
    body = _encode({"features": answer.names, "rows": answer.rows})
    if _LOST in body:
        body = _encode({"features": answer.names, "rows": [_spelled(row) for row in answer.rows]})
    return body


def render_score(answer: ScoreAnswer) -> bytes:
    """Write a reply."""
    body = _encode_scores(answer, answer.read.rows)
    return _encode_scores(answer, [_spelled(row) for row in answer.read.rows]) if _LOST in body else body


def _encode_scores(answer: ScoreAnswer, rows: Sequence[OnlineRow]) -> bytes:
    each = zip(answer.scores, answer.reasons, rows, strict=True)
    found = [{"score": score, "reason": reason, "features": row} for score, reason, row in each]
    return _encode({"model": answer.model, "version": answer.version, "rows": found})


def render_error(reason: Reason, message: str) -> bytes:
    return _encode({"error": {"reason": reason.value, "message": message}})


def _spelled(row: OnlineRow) -> OnlineRow:
    return {name: _spelled_value(value) for name, value in row.items()}


def _spelled_value(one: OnlineValue) -> OnlineValue:
    if one.status is not Status.PRESENT or not isinstance(one.value, float) or math.isfinite(one.value):
        return one
    return OnlineValue(_NOT_FINITE.get(one.value, "NaN"), one.status, one.event_timestamp)
