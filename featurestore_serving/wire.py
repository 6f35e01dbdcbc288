"""Requests and replies as JSON."""

import math

import msgspec

from featurestore.online.values import OnlineValue, Status
from featurestore.store import OnlineRow
from featurestore_serving.features import Answer, FeatureRequest
from featurestore_serving.refusals import Reason, RefusedError

# JSON has no NaN and no infinity; these are the texts that Protocol Buffers use for them in JSON.
_NOT_FINITE = {math.inf: "Infinity", -math.inf: "-Infinity"}
# How msgspec writes a number that is not finite; inside a text the quotes would stand behind backslashes.
_LOST = b'"value":null,"status":"PRESENT"'


class _Body(msgspec.Struct, forbid_unknown_fields=True):
    keys: dict[str, list[int | float | str | bool]] = {}
    features: list[str] = []
    model: str = ""
    request: dict[str, list[int | float | str | bool | None]] = {}


_decode = msgspec.json.Decoder(_Body).decode
_encode = msgspec.json.Encoder().encode


def parse(body: bytes) -> FeatureRequest:
    """Read a request.

    Raises:
        RefusedError: MALFORMED if it is not JSON, INVALID if a member has another name or type.
    """
    try:
        found = _decode(body)
    except msgspec.ValidationError as error:
        raise RefusedError(Reason.INVALID, str(error)) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RefusedError(Reason.MALFORMED, f"the body is not JSON in UTF-8: {error}") from error
    except RecursionError as error:
        raise RefusedError(Reason.MALFORMED, "the body is nested too deeply") from error
    return FeatureRequest(features=found.features, model=found.model, keys=found.keys, request=found.request)


def render(answer: Answer) -> bytes:
    """Write a reply; the rows are objects by feature name."""
    body = _encode({"features": answer.names, "rows": answer.rows})
    if _LOST in body:
        body = _encode({"features": answer.names, "rows": [_spelled(row) for row in answer.rows]})
    return body


def render_error(reason: Reason, message: str) -> bytes:
    return _encode({"error": {"reason": reason.value, "message": message}})


def _spelled(row: OnlineRow) -> OnlineRow:
    return {name: _spelled_value(value) for name, value in row.items()}


def _spelled_value(one: OnlineValue) -> OnlineValue:
    if one.status is not Status.PRESENT or not isinstance(one.value, float) or math.isfinite(one.value):
        return one
    return OnlineValue(_NOT_FINITE.get(one.value, "NaN"), one.status, one.event_timestamp)
