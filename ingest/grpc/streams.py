"""The calls that are sending: how many a sender has, and which are too slow. Each holds a thread meanwhile."""

import math
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Literal, Protocol, TypeVar

import grpc

from ingest.grpc.refusals import RefusedError, abort

_RETRY_S = 1.0

Kind = Literal["file", "message"]
Handler = Any  # a grpc.RpcMethodHandler; at run time that class takes no parameters


class Sized(Protocol):
    """A protobuf message."""

    def ByteSize(self) -> int: ...  # noqa: N802


Message = TypeVar("Message", bound=Sized)


class Stream:
    """One call that sends. While it is waited for, its time runs out; what it brings gives it new."""

    def __init__(self, context: grpc.ServicerContext, kind: Kind, *, longest_s: float, slowest_bytes_s: float) -> None:
        self._context, self._longest_s, self._slowest_bytes_s = context, longest_s, slowest_bytes_s
        self.sender = context.peer().rpartition(":")[0], kind  # without its port
        self._ends_s = time.monotonic() + longest_s

    def heard(self, messages: Iterable[Message]) -> Iterator[Message]:
        """The messages."""
        left_s, messages = self._longest_s, iter(messages)
        while True:
            self._ends_s = time.monotonic() + left_s
            message = next(messages, None)
            left_s, self._ends_s = self._ends_s - time.monotonic(), math.inf  # from here on, the service works
            if message is None:
                return
            left_s = min(self._longest_s, left_s + message.ByteSize() / self._slowest_bytes_s)
            yield message

    @property
    def is_too_slow(self) -> bool:
        return time.monotonic() > self._ends_s

    def cut(self) -> None:
        self._context.cancel()


class Streams:
    """Every call that is sending. Thread-safe."""

    def __init__(self, *, per_peer: int, longest_silence_s: float, slowest_bytes_s: float) -> None:
        self._per_peer, self._longest_s, self._slowest_bytes_s = per_peer, longest_silence_s, slowest_bytes_s
        self._lock = threading.Lock()
        self._open: set[Stream] = set()

    @contextmanager
    def admitted(self, context: grpc.ServicerContext, kind: Kind = "file") -> Generator[Stream]:
        """Count a stream, by its kind, while it is open.

        Raises:
            RefusedError: its sender has as many as one may have.
        """
        stream = Stream(context, kind, longest_s=self._longest_s, slowest_bytes_s=self._slowest_bytes_s)
        with self._lock:
            if sum(one.sender == stream.sender for one in self._open) >= self._per_peer:
                raise RefusedError(
                    grpc.StatusCode.RESOURCE_EXHAUSTED,
                    f"you have {self._per_peer} streams open; one has to end first",
                    retry_s=_RETRY_S,
                )
            self._open.add(stream)
        try:
            yield stream
        finally:
            with self._lock:
                self._open.discard(stream)

    def cut_slow(self) -> int:
        """End the calls whose sender was silent for too long, or is too slow. Returns how many."""
        with self._lock:
            slow = [stream for stream in self._open if stream.is_too_slow]
        for stream in slow:
            stream.cut()
        return len(slow)


class MessageInterceptor(grpc.ServerInterceptor):
    """Has the message of a unary call read as a stream of one: otherwise its thread is lost until the sender sends it.

    Unary calls run in threads of their own, so that uploads, which may take hours, do not keep them.
    """

    def __init__(self, streams: Streams, threads: ThreadPoolExecutor) -> None:
        self._streams, self._threads = streams, threads

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

        setattr(answer, "experimental_thread_pool", self._threads)  # noqa: B010  # as grpc has it
        make = grpc.stream_unary_rpc_method_handler
        return make(answer, handler.request_deserializer, handler.response_serializer)

    def _message(self, messages: Iterator[Any], context: grpc.ServicerContext) -> Any:
        message = None
        try:
            with self._streams.admitted(context, "message") as stream:
                message = next(stream.heard(messages), None)
        except RefusedError as error:
            abort(context, error)
        except grpc.RpcError:  # cut, or gone
            abort(context, RefusedError(grpc.StatusCode.CANCELLED, "the message did not come in time"))
        if message is None:
            abort(context, RefusedError(grpc.StatusCode.INVALID_ARGUMENT, "the call has no message"))
        return message
