"""Why a call was refused, as a status that tells people and programs what to do (the details of google.rpc)."""

import re
from collections.abc import Mapping
from typing import NoReturn

import grpc
from google.protobuf.any_pb2 import Any as Packed
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status
from grpc_status import rpc_status

from featurestore.errors import DefinitionError, FeatureStoreError, NoSpaceError, TerminalError, TransientError

DOMAIN = "featurestore"

_RETRY_S = 5.0  # after what passes by itself, but not at once


class RefusedError(FeatureStoreError):
    """A call that is answered with `code`; where trying again may help, after `retry_s`."""

    def __init__(
        self,
        code: grpc.StatusCode,
        message: str,
        *,
        retry_s: float | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        self.code, self.retry_s, self.metadata = code, retry_s, metadata or {}
        super().__init__(message)


class InvalidFieldError(TerminalError):
    """A field of a request that is not what the .proto file says."""

    def __init__(self, field: str, message: str) -> None:
        self.field = field
        super().__init__(message)


def abort(context: grpc.ServicerContext, error: FeatureStoreError) -> NoReturn:
    """End a call with the status of an error."""
    context.abort_with_status(rpc_status.to_status(status_of_error(error)))
    raise AssertionError("abort raises")


def status_of_error(error: FeatureStoreError) -> Status:
    """ErrorInfo always; BadRequest names the field that is wrong, RetryInfo says when to try again."""
    code, metadata = code_of(error), error.metadata if isinstance(error, RefusedError) else {}
    details: list[Packed] = [_packed(ErrorInfo(reason=_reason(error, code), domain=DOMAIN, metadata=metadata))]
    if isinstance(error, InvalidFieldError):
        violation = BadRequest.FieldViolation(field=error.field, description=str(error))
        details.append(_packed(BadRequest(field_violations=[violation])))
    retry_s = (
        error.retry_s if isinstance(error, RefusedError) else _RETRY_S if isinstance(error, TransientError) else None
    )
    if retry_s is not None:
        delay = Duration()
        delay.FromMilliseconds(int(retry_s * 1000))
        details.append(_packed(RetryInfo(retry_delay=delay)))
    return Status(code=code.value[0], message=str(error), details=details)


def code_of(error: FeatureStoreError) -> grpc.StatusCode:
    """ALREADY_EXISTS, NOT_FOUND and INVALID_ARGUMENT are final; what may be tried again has another code."""
    if isinstance(error, RefusedError):
        return error.code
    if isinstance(error, NoSpaceError):
        return grpc.StatusCode.RESOURCE_EXHAUSTED
    if isinstance(error, TransientError):
        return grpc.StatusCode.UNAVAILABLE
    if isinstance(error, DefinitionError):
        return grpc.StatusCode.NOT_FOUND
    return grpc.StatusCode.INVALID_ARGUMENT if isinstance(error, TerminalError) else grpc.StatusCode.INTERNAL


def _reason(error: FeatureStoreError, code: grpc.StatusCode) -> str:
    """UPPER_SNAKE_CASE: what kind of error it is; of a plain refusal, its code."""
    if type(error) in {RefusedError, TerminalError, TransientError}:
        return code.name
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", type(error).__name__.removesuffix("Error")).upper()


def _packed(detail: ErrorInfo | BadRequest | RetryInfo) -> Packed:
    packed = Packed()
    packed.Pack(detail)
    return packed
