"""How much is let in at once: a bounded number of requests, some of them on threads, each until its deadline."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from featurestore_serving.refusals import Reason, RefusedError

Result = TypeVar("Result")


class Gate:
    """Runs calls on threads. A place is taken until the call has really ended, also when nobody waits for it any more.

    Threads, because the library's pool of connections makes a read as cheap as an asynchronous one, and because
    derived features compute.
    """

    def __init__(self, *, threads: int, places: int) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="features")
        self._places, self._taken = places, 0
        self._lock = threading.Lock()

    async def run(self, call: Callable[[], Result], timeout_s: float) -> Result:
        """Run `call` and return what it returns.

        Raises:
            RefusedError: BUSY when all places are taken, LATE when there is no result in time.
        """
        with self._lock:
            if self._taken >= self._places:
                raise RefusedError(Reason.BUSY, f"{self._places} requests are under way; try again a little later")
            self._taken += 1
        future = self._pool.submit(call)
        future.add_done_callback(self._leave)
        try:
            async with asyncio.timeout(timeout_s):
                return await asyncio.wrap_future(future)  # cancels a call that has not begun
        except TimeoutError as error:
            raise RefusedError(Reason.LATE, f"no answer within {timeout_s:g} s; try again a little later") from error

    def close(self) -> None:
        """Wait for the calls that have begun; others are dropped."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _leave(self, _: Future[Result]) -> None:
        with self._lock:
            self._taken -= 1
