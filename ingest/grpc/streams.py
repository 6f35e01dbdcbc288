"""The streams that are open: how many a sender has, and which have fallen silent."""

import threading
import time
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import grpc

from ingest.grpc.refusals import RefusedError

Message = TypeVar("Message")

_RETRY_S = 1.0


class Stream:
    """One call that sends."""

    def __init__(self, context: grpc.ServicerContext) -> None:
        self._context = context
        self.peer = context.peer().rpartition(":")[0]  # without its port
        self._heard_s = time.monotonic()

    def heard(self, messages: Iterable[Message]) -> Iterator[Message]:
        """The messages; that they come is noticed."""
        for message in messages:
            self._heard_s = time.monotonic()
            yield message
        self._heard_s = float("inf")  # all is sent: now the service works

    def is_silent(self, longest_s: float) -> bool:
        return time.monotonic() - self._heard_s > longest_s

    def cut(self) -> None:
        self._context.cancel()


class Streams:
    """Every stream of the service. Thread-safe."""

    def __init__(self, *, per_peer: int, longest_silence_s: float) -> None:
        self._per_peer, self._longest_silence_s = per_peer, longest_silence_s
        self._lock = threading.Lock()
        self._open: set[Stream] = set()

    @contextmanager
    def admitted(self, context: grpc.ServicerContext) -> Generator[Stream]:
        """Count a stream while it is open.

        Raises:
            RefusedError: its sender has as many as one may have.
        """
        stream = Stream(context)
        with self._lock:
            if sum(one.peer == stream.peer for one in self._open) >= self._per_peer:
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

    def cut_silent(self) -> int:
        """End the streams whose sender has said nothing for too long: they hold a thread each. Returns how many."""
        with self._lock:
            silent = [stream for stream in self._open if stream.is_silent(self._longest_silence_s)]
        for stream in silent:
            stream.cut()
        return len(silent)
