"""Features and scores over HTTP: the routes, and what each answers."""

from collections.abc import Callable, Mapping

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from featurestore.process.health import Health
from featurestore_serving.features import Features, Limits
from featurestore_serving.http_door import JSON, Door
from featurestore_serving.inference_api import InferenceApi
from featurestore_serving.openapi import page, specification
from featurestore_serving.refusals import Reason, RefusedError
from featurestore_serving.scores import Scores
from featurestore_serving.wire import parse, parse_score, render, render_error, render_score

_METRICS = "text/plain; version=0.0.4; charset=utf-8"
_REASONS: Mapping[int, Reason] = {400: Reason.MALFORMED, 404: Reason.INVALID, 405: Reason.INVALID}
_PAGE_HEADERS = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'"}


class HttpApi:
    """The endpoints; each request is answered, whatever it is."""

    def __init__(
        self,
        features: Features,
        scores: Scores,
        inference: InferenceApi,
        door: Door,
        *,
        asked: Limits,
        health: Health,
        scrape: Callable[[], bytes],
    ) -> None:
        self._features, self._scores, self._inference, self._door = features, scores, inference, door
        self._health, self._scrape = health, scrape
        self._specification = msgspec.json.encode(specification(asked, door.limits.body_bytes, door.limits.timeout_s))
        self._page = page(msgspec.json.decode(self._specification))

    def application(self) -> Starlette:
        guarded = self._door.guarded
        routes = [
            Route("/v1/features", guarded(self._get_features), methods=["POST"]),
            Route("/v1/features", guarded(self._list_features), methods=["GET"]),
            Route("/v1/score", guarded(self._score), methods=["POST"]),
            Route("/metrics", guarded(self._get_metrics), methods=["GET"]),
            Route("/health", self._get_health, methods=["GET"]),
            Route("/ready", self._get_ready, methods=["GET"]),
            Route("/openapi.json", self._get_specification, methods=["GET"]),
            Route("/", self._get_page, methods=["GET"]),
            *self._inference.routes(),
        ]
        return Starlette(routes=routes, exception_handlers={HTTPException: _not_found})

    async def _get_features(self, request: Request) -> Response:
        return await self._answer(request, self._features_reply)

    async def _score(self, request: Request) -> Response:
        return await self._answer(request, self._score_reply)

    async def _answer(self, request: Request, reply: Callable[[bytes], bytes]) -> Response:
        def checked(body: bytes) -> bytes:
            if request.headers.get("content-type", JSON).partition(";")[0].strip().lower() != JSON:
                raise RefusedError(Reason.INVALID, "send the request as application/json")
            return reply(body)

        return Response(await self._door.run(request, checked), media_type=JSON)

    def _features_reply(self, body: bytes) -> bytes:
        answer = self._features.answer(parse(body))
        self._door.answered(len(answer.rows))
        return render(answer)

    def _score_reply(self, body: bytes) -> bytes:
        answer = self._scores.answer(parse_score(body))
        self._door.answered(len(answer.scores))
        return render_score(answer)

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
        return Response(self._specification, media_type=JSON)

    async def _get_page(self, _: Request) -> Response:
        return HTMLResponse(self._page, headers=_PAGE_HEADERS)


async def _not_found(_: Request, error: Exception) -> Response:
    """Paths and methods that are not there."""
    assert isinstance(error, HTTPException)
    body = render_error(
        _REASONS.get(error.status_code, Reason.INVALID), f"{error.detail}; the API stands in /openapi.json"
    )
    return Response(body, error.status_code, error.headers, JSON)
