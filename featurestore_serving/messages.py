"""Calls over gRPC whose message has not come. Each holds a thread until it has, so who is too slow is cut off."""

import time
from collections.abc import Callable, Iterator
from threading import Event, Thread
from typing import Any

import grpc

from featurestore_serving.auth import Handler

LATE = "the message did not come in time"


class MessageInterceptor(grpc.ServerInterceptor):
    """Has the message of a unary call read as a stream of one, within a time; while it waits, it can be cut."""

    def __init__(self, longest_s: float) -> None:
        self._longest_s = longest_s
        self._waiting: dict[int, tuple[float, grpc.ServicerContext]] = {}
        self._stopping = Event()
        self._thread = Thread(target=self._watch, name="grpc-late", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Handler | None],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        handler = continuation(handler_call_details)
        if handler is None or handler.unary_unary is None:
            return handler

        def answer(messages: Iterator[Any], context: grpc.ServicerContext) -> Any:
            return handler.unary_unary(self._message(messages, context), context)

        make = grpc.stream_unary_rpc_method_handler
        return make(answer, handler.request_deserializer, handler.response_serializer)

    def _message(self, messages: Iterator[Any], context: grpc.ServicerContext) -> Any:
        self._waiting[id(context)] = time.monotonic() + self._longest_s, context
        try:
            message = next(messages, None)
        except grpc.RpcError:  # cut, or gone
            context.abort(grpc.StatusCode.CANCELLED, LATE)
        finally:
            del self._waiting[id(context)]
        if message is None:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the call has no message")
        return message

    def _watch(self) -> None:
        while not self._stopping.wait(min(1.0, self._longest_s / 4)):
            for until, context in list(self._waiting.values()):
                if time.monotonic() > until:
                    context.cancel()
