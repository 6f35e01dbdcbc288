"""Bearer tokens: compared in constant time, so that nothing is learned from how long a refusal takes."""

import hmac
from collections.abc import Callable
from typing import Any

import grpc

from featurestore_serving.refusals import Reason, RefusedError

REFUSAL = "send the server's token: `authorization: Bearer TOKEN`"

_OPEN = "/grpc.health.v1.Health/"

Handler = Any  # a grpc.RpcMethodHandler; at run time that class takes no parameters


class Token:
    """The token that clients must send; empty lets everyone in."""

    def __init__(self, token: str) -> None:
        self._expected = f"Bearer {token}".encode() if token else b""

    @property
    def is_asked(self) -> bool:
        return bool(self._expected)

    def check(self, sent: bytes) -> None:
        """Check the value of `authorization`.

        Raises:
            RefusedError: it is not the token.
        """
        if self._expected and not hmac.compare_digest(sent, self._expected):
            raise RefusedError(Reason.UNAUTHENTICATED, REFUSAL)


class TokenInterceptor(grpc.ServerInterceptor):
    """Asks every call for the token, but for the health check."""

    def __init__(self, token: Token) -> None:
        self._token = token

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Handler | None],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        handler = continuation(handler_call_details)
        if handler is None or handler_call_details.method.startswith(_OPEN):
            return handler
        sent = dict(handler_call_details.invocation_metadata or ()).get("authorization", b"")
        try:
            self._token.check(sent if isinstance(sent, bytes) else sent.encode())
        except RefusedError:
            make = grpc.stream_unary_rpc_method_handler  # whose message, if it comes at all, nobody waits for
            return make(_refuse, handler.request_deserializer, handler.response_serializer)
        return handler


def _refuse(_: object, context: grpc.ServicerContext) -> None:
    context.abort(grpc.StatusCode.UNAUTHENTICATED, REFUSAL)
