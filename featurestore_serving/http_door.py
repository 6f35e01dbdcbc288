"""What every HTTP request goes through: the token, its size, its deadline; and how a refusal is said."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from featurestore.errors import FeatureStoreError
from featurestore_serving.auth import Token
from featurestore_serving.gate import Gate
from featurestore_serving.metrics import ServerMetrics
from featurestore_serving.refusals import HTTP_STATUS, RETRY_AFTER_S, Reason, RefusedError, Transport, reason_of
from featurestore_serving.wire import render_error

TIMEOUT_HEADER = "x-timeout-ms"
LINGER = (
    8  # a body up to so many times too large is read and dropped, because who still sends does not read the refusal
)
JSON = "application/json"

Endpoint = Callable[[Request], Awaitable[Response]]
Render = Callable[[Reason, str], bytes]
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpLimits:
    """What a request may cost."""

    body_bytes: int
    timeout_s: float


class Door:
    """Lets requests in, and answers those that it does not."""

    def __init__(self, gate: Gate, token: Token, limits: HttpLimits, metrics: ServerMetrics) -> None:
        self._gate, self._token, self.limits, self._metrics = gate, token, limits, metrics

    def guarded(self, endpoint: Endpoint, render: Render = render_error) -> Endpoint:
        """Ask for the token first; turn errors of the store into replies."""

        async def answered(request: Request) -> Response:
            try:
                self._token.check(request.headers.get("authorization", "").encode("latin-1"))
                return await endpoint(request)
            except FeatureStoreError as error:
                return refused(reason_of(error), render(reason_of(error), str(error)))

        return answered

    async def run(self, request: Request, call: Callable[[bytes], Result]) -> Result:
        """What `call` makes of the body, on a thread, within the deadline."""
        with self._metrics.observed(Transport.HTTP):
            timeout_s = self._timeout_s(request)
            body = await self._body(request)
            return await self._gate.run(lambda: call(body), timeout_s)

    def answered(self, rows: int) -> None:
        """Count the rows of a reply."""
        self._metrics.answered(Transport.HTTP, rows)

    def _timeout_s(self, request: Request) -> float:
        asked = request.headers.get(TIMEOUT_HEADER)
        if asked is None:
            return self.limits.timeout_s
        if not (asked.isascii() and asked.isdigit()) or len(asked) > 9 or int(asked) == 0:
            raise RefusedError(Reason.INVALID, f"{TIMEOUT_HEADER} is a number of milliseconds from 1")
        return min(self.limits.timeout_s, int(asked) / 1000)

    async def _body(self, request: Request) -> bytes:
        """The whole body, unless it is too large or does not come."""
        limit = self.limits.body_bytes
        announced = request.headers.get("content-length", "")
        if announced.isdigit() and int(announced[:20]) > LINGER * limit:
            raise _too_large(limit)
        body, size = bytearray(), 0
        try:
            async with asyncio.timeout(self.limits.timeout_s):
                async for part in request.stream():
                    size += len(part)
                    if size <= limit:
                        body += part
                    elif size > LINGER * limit:
                        raise _too_large(limit)
        except TimeoutError as error:
            raise RefusedError(Reason.SLOW, "the request did not come in time") from error
        except ClientDisconnect as error:
            raise RefusedError(Reason.SLOW, "the client went away") from error
        if size > limit:
            raise _too_large(limit)
        return bytes(body)


def refused(reason: Reason, body: bytes) -> Response:
    """The reply to a request that is refused."""
    headers: dict[str, str] = {}
    if reason in RETRY_AFTER_S:
        headers["Retry-After"] = str(RETRY_AFTER_S[reason])
    if reason is Reason.UNAUTHENTICATED:
        headers["WWW-Authenticate"] = "Bearer"
    if reason in {Reason.TOO_LARGE, Reason.SLOW, Reason.UNAUTHENTICATED}:
        headers["Connection"] = "close"  # what is left of the request is not read
    return Response(body, HTTP_STATUS[reason], headers, JSON)


def _too_large(limit: int) -> RefusedError:
    return RefusedError(Reason.TOO_LARGE, f"the body has more than {limit} bytes")
