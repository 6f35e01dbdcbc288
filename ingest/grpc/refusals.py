"""Why a call was refused, as a status that tells the caller what to do."""

import grpc

from featurestore.errors import DefinitionError, FeatureStoreError, NoSpaceError, TerminalError, TransientError


class RefusedError(FeatureStoreError):
    """A call that is answered with `code`."""

    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        self.code = code
        super().__init__(message)


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
