"""Bearer tokens: who does not send the token is turned away, except by the health check."""

import hmac
from collections.abc import Callable
from typing import Any

import grpc

_OPEN = "/grpc.health.v1.Health/"

Handler = Any  # a grpc.RpcMethodHandler; at run time that class takes no parameters


class TokenInterceptor(grpc.ServerInterceptor):
    """Asks every call for `authorization: Bearer TOKEN`."""

    def __init__(self, token: str) -> None:
        self._expected = f"Bearer {token}".encode()

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Handler | None],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        handler = continuation(handler_call_details)
        if handler is None or handler_call_details.method.startswith(_OPEN) or self._sent_by(handler_call_details):
            return handler
        streaming = handler.request_streaming
        make = grpc.stream_unary_rpc_method_handler if streaming else grpc.unary_unary_rpc_method_handler
        return make(_refuse, handler.request_deserializer, handler.response_serializer)

    def _sent_by(self, details: grpc.HandlerCallDetails) -> bool:
        sent = dict(details.invocation_metadata or ()).get("authorization", b"")
        return hmac.compare_digest(sent if isinstance(sent, bytes) else sent.encode(), self._expected)


def _refuse(_: object, context: grpc.ServicerContext) -> None:
    context.abort(grpc.StatusCode.UNAUTHENTICATED, "send the token: FEATURESTORE_GRPC_TOKEN")
