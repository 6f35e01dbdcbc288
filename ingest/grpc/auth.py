"""Bearer tokens: who sends none that is known is turned away, except by the health check."""

import hmac
from collections.abc import Callable
from typing import Any

import grpc

from featurestore.errors import SettingsError
from featurestore.settings import GrpcSettings
from ingest.grpc.refusals import RefusedError, abort

_OPEN = "/grpc.health.v1.Health/"
_ANY = "*"

Handler = Any  # a grpc.RpcMethodHandler; at run time that class takes no parameters


class Tokens:
    """The tokens that are known, and the sources that each may send to; without any, everyone may do everything."""

    def __init__(self, settings: GrpcSettings) -> None:
        self._sources: dict[bytes, frozenset[str]] = {}
        if settings.token:
            self._sources[f"Bearer {settings.token}".encode()] = frozenset({_ANY})
        for line in filter(None, map(str.strip, settings.tokens.replace(";", "\n").splitlines())):
            token, *sources = line.split()
            if not sources:
                raise SettingsError("FEATURESTORE_GRPC_TOKENS: a line is TOKEN SOURCE SOURCE …, or TOKEN *")
            self._sources[f"Bearer {token}".encode()] = frozenset(sources)

    def __bool__(self) -> bool:
        return bool(self._sources)

    def sources_of(self, metadata: Any) -> frozenset[str]:
        """What the sender of a call may send to; nothing, if its token is not known.

        Every known token is compared whole, so that nothing is learned from how long that takes.
        """
        sent = dict(metadata or ()).get("authorization", b"")
        sent = sent if isinstance(sent, bytes) else sent.encode()
        found: frozenset[str] = frozenset()
        for token, sources in self._sources.items():
            if hmac.compare_digest(sent, token):
                found = sources
        return found

    def check(self, context: grpc.ServicerContext, source: str) -> None:
        """Let a call pass that is about a source.

        Raises:
            RefusedError: its token is for other sources.
        """
        if self and not {source, _ANY} & self.sources_of(context.invocation_metadata()):
            raise RefusedError(grpc.StatusCode.PERMISSION_DENIED, f"your token does not allow source {source!r}")


class TokenInterceptor(grpc.ServerInterceptor):
    """Asks every call for `authorization: Bearer TOKEN`."""

    def __init__(self, tokens: Tokens) -> None:
        self._tokens = tokens

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Handler | None],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        handler = continuation(handler_call_details)
        known = not self._tokens or self._tokens.sources_of(handler_call_details.invocation_metadata)
        if handler is None or handler_call_details.method.startswith(_OPEN) or known:
            return handler
        make = grpc.stream_unary_rpc_method_handler  # which waits for no message
        return make(_refuse, handler.request_deserializer, handler.response_serializer)


def _refuse(_: object, context: grpc.ServicerContext) -> None:
    abort(context, RefusedError(grpc.StatusCode.UNAUTHENTICATED, "send the token: FEATURESTORE_GRPC_TOKEN"))
