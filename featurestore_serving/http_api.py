"""Features over HTTP: the routes, and what each answers."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from featurestore.errors import FeatureStoreError
from featurestore.process.health import Health
from featurestore_serving.auth import Token
from featurestore_serving.features import Features, Limits
from featurestore_serving.gate import Gate
from featurestore_serving.metrics import ServerMetrics
from featurestore_serving.openapi import page, specification
from featurestore_serving.refusals import HTTP_STATUS, RETRY_AFTER_S, Reason, RefusedError, Transport, reason_of
from featurestore_serving.wire import parse, render, render_error

TIMEOUT_HEADER = "x-timeout-ms"
LINGER = (
    8  # a body up to so many times too large is read and dropped, because who still sends does not read the refusal
)

_JSON = "application/json"
_METRICS = "text/plain; version=0.0.4; charset=utf-8"
_REASONS: Mapping[int, Reason] = {400: Reason.MALFORMED, 404: Reason.INVALID, 405: Reason.INVALID}
_PAGE_HEADERS = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'"}

Endpoint = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpLimits:
    """What a request may cost."""

    body_bytes: int
    timeout_s: float


class HttpApi:
    """The endpoints; each request is answered, whatever it is."""

    def __init__(
        self,
        features: Features,
        gate: Gate,
        token: Token,
        *,
        limits: HttpLimits,
        asked: Limits,
        health: Health,
        metrics: ServerMetrics,
        scrape: Callable[[], bytes],
    ) -> None:
        self._features, self._gate, self._token = features, gate, token
        self._limits, self._health, self._metrics, self._scrape = limits, health, metrics, scrape
        self._specification = msgspec.json.encode(specification(asked, limits.body_bytes, limits.timeout_s))
        self._page = page(msgspec.json.decode(self._specification))

    def application(self) -> Starlette:
        routes = [
            Route("/v1/features", self._answered(self._get_features), methods=["POST"]),
            Route("/v1/features", self._answered(self._list_features), methods=["GET"]),
            Route("/metrics", self._answered(self._get_metrics), methods=["GET"]),
            Route("/health", self._get_health, methods=["GET"]),
            Route("/ready", self._get_ready, methods=["GET"]),
            Route("/openapi.json", self._get_specification, methods=["GET"]),
            Route("/", self._get_page, methods=["GET"]),
        ]
        return Starlette(routes=routes, exception_handlers={HTTPException: _not_found})

    async def _get_features(self, request: Request) -> Response:
        with self._metrics.observed(Transport.HTTP):
            if request.headers.get("content-type", _JSON).partition(";")[0].strip().lower() != _JSON:
                raise RefusedError(Reason.INVALID, "send the request as application/json")
            timeout_s = self._timeout_s(request)
            body = await self._body(request)
            reply = await self._gate.run(lambda: self._reply(body), timeout_s)
        return Response(reply, media_type=_JSON)

    def _reply(self, body: bytes) -> bytes:
        answer = self._features.answer(parse(body))
        self._metrics.answered(Transport.HTTP, len(answer.rows))
        return render(answer)

    def _timeout_s(self, request: Request) -> float:
        asked = request.headers.get(TIMEOUT_HEADER)
        if asked is None:
            return self._limits.timeout_s
        if not (asked.isascii() and asked.isdigit()) or len(asked) > 9 or int(asked) == 0:
            raise RefusedError(Reason.INVALID, f"{TIMEOUT_HEADER} is a number of milliseconds from 1")
        return min(self._limits.timeout_s, int(asked) / 1000)

    async def _body(self, request: Request) -> bytes:
        """The whole body, unless it is too large or does not come."""
        limit = self._limits.body_bytes
        announced = request.headers.get("content-length", "")
        if announced.isdigit() and int(announced[:20]) > LINGER * limit:
            raise _too_large(limit)
        body, size = bytearray(), 0
        try:
            async with asyncio.timeout(self._limits.timeout_s):
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

    async def _list_features(self, _: Request) -> Response:
        return JSONResponse(self._features.catalogue())

    async def _get_metrics(self, _: Request) -> Response:
        return Response(self._scrape(), media_type=_METRICS)

    async def _get_health(self, _: Request) -> Response:
        """It runs: this answer is the proof."""
        state, note = self._health.snapshot()
        return JSONResponse({"state": state, "note": note})

    async def _get_ready(self, _: Request) -> Response:
        state, note = self._health.snapshot()
        return JSONResponse({"state": state, "note": note}, 200 if state == "ready" else 503)

    async def _get_specification(self, _: Request) -> Response:
        return Response(self._specification, media_type=_JSON)

    async def _get_page(self, _: Request) -> Response:
        return HTMLResponse(self._page, headers=_PAGE_HEADERS)

    def _answered(self, endpoint: Endpoint) -> Endpoint:
        """Ask for the token first; turn errors of the store into replies."""

        async def answered(request: Request) -> Response:
            try:
                self._token.check(request.headers.get("authorization", "").encode("latin-1"))
                return await endpoint(request)
            except FeatureStoreError as error:
                return _refused(reason_of(error), str(error))

        return answered


def _refused(reason: Reason, message: str) -> Response:
    headers: dict[str, str] = {}
    if reason in RETRY_AFTER_S:
        headers["Retry-After"] = str(RETRY_AFTER_S[reason])
    if reason is Reason.UNAUTHENTICATED:
        headers["WWW-Authenticate"] = "Bearer"
    if reason in {Reason.TOO_LARGE, Reason.SLOW, Reason.UNAUTHENTICATED}:
        headers["Connection"] = "close"  # what is left of the request is not read
    return Response(render_error(reason, message), HTTP_STATUS[reason], headers, _JSON)


def _too_large(limit: int) -> RefusedError:
    return RefusedError(Reason.TOO_LARGE, f"the body has more than {limit} bytes")


async def _not_found(_: Request, error: Exception) -> Response:
    """Paths and methods that are not there."""
    assert isinstance(error, HTTPException)
    body = render_error(
        _REASONS.get(error.status_code, Reason.INVALID), f"{error.detail}; the API stands in /openapi.json"
    )
    return Response(body, error.status_code, error.headers, _JSON)
