"""Why a request is refused: one reason, as each transport says it."""

from collections.abc import Mapping
from enum import Enum, StrEnum

import grpc

from featurestore.errors import DefinitionError, FeatureStoreError, TerminalError, TransientError


class Reason(StrEnum):
    """What the caller can do about it stands in the message."""

    MALFORMED = "MALFORMED"  # not a request at all
    INVALID = "INVALID"  # a request that cannot be answered, however often it is sent
    NOT_FOUND = "NOT_FOUND"  # a model that is not in production
    UNAUTHENTICATED = "UNAUTHENTICATED"
    TOO_LARGE = "TOO_LARGE"
    SLOW = "SLOW"  # the request itself did not come in time
    BUSY = "BUSY"  # too much at once; try again
    LATE = "LATE"  # the deadline passed; try again
    UNAVAILABLE = "UNAVAILABLE"  # a service behind this one does not answer; try again
    INTERNAL = "INTERNAL"


class RefusedError(FeatureStoreError):
    """A request that is answered with a reason."""

    def __init__(self, reason: Reason, message: str) -> None:
        self.reason = reason
        super().__init__(message)


HTTP_STATUS: Mapping[Reason, int] = {
    Reason.MALFORMED: 400,
    Reason.UNAUTHENTICATED: 401,
    Reason.NOT_FOUND: 404,
    Reason.SLOW: 408,
    Reason.TOO_LARGE: 413,
    Reason.INVALID: 422,
    Reason.INTERNAL: 500,
    Reason.BUSY: 503,
    Reason.UNAVAILABLE: 503,
    Reason.LATE: 504,
}
GRPC_STATUS: Mapping[Reason, grpc.StatusCode] = {
    Reason.MALFORMED: grpc.StatusCode.INVALID_ARGUMENT,
    Reason.UNAUTHENTICATED: grpc.StatusCode.UNAUTHENTICATED,
    Reason.SLOW: grpc.StatusCode.DEADLINE_EXCEEDED,
    Reason.NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    Reason.TOO_LARGE: grpc.StatusCode.INVALID_ARGUMENT,
    Reason.INVALID: grpc.StatusCode.INVALID_ARGUMENT,
    Reason.INTERNAL: grpc.StatusCode.INTERNAL,
    Reason.BUSY: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Reason.UNAVAILABLE: grpc.StatusCode.UNAVAILABLE,
    Reason.LATE: grpc.StatusCode.DEADLINE_EXCEEDED,
}
RETRY_AFTER_S: Mapping[Reason, int] = {Reason.BUSY: 1, Reason.UNAVAILABLE: 2, Reason.LATE: 1}


class Transport(Enum):
    """The ways in; labels of the metrics."""

    HTTP = "http"
    GRPC = "grpc"


def reason_of(error: FeatureStoreError) -> Reason:
    """What an error of the store is to the caller."""
    if isinstance(error, RefusedError):
        return error.reason
    if isinstance(error, TransientError):
        return Reason.UNAVAILABLE
    return Reason.INVALID if isinstance(error, DefinitionError | TerminalError) else Reason.INTERNAL
