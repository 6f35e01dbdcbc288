"""The Open Inference Protocol over HTTP: its routes, in its own words for errors."""

from importlib.metadata import version

import msgspec
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from featurestore.process.health import Health
from featurestore_serving.http_door import JSON, Door, Endpoint
from featurestore_serving.inference import EXTENSIONS, Inference, Message
from featurestore_serving.refusals import Reason, RefusedError

LENGTH_HEADER = "inference-header-content-length"
SERVER = {"name": "featurestore", "version": version("featurestore-dagster"), "extensions": EXTENSIONS}


class InferenceApi:
    """The endpoints below /v2."""

    def __init__(self, inference: Inference, door: Door, health: Health) -> None:
        self._inference, self._door, self._health = inference, door, health

    def routes(self) -> list[Route]:
        paths = ("/v2/models/{model}", "/v2/models/{model}/versions/{version}")
        routes = [
            Route("/v2", self._guarded(self._server), methods=["GET"]),
            Route("/v2/health/live", self._live, methods=["GET"]),
            Route("/v2/health/ready", self._ready, methods=["GET"]),
        ]
        for path in paths:
            routes += [
                Route(path, self._guarded(self._metadata), methods=["GET"]),
                Route(f"{path}/ready", self._guarded(self._model_ready), methods=["GET"]),
                Route(f"{path}/infer", self._guarded(self._infer), methods=["POST"]),
            ]
        return routes

    async def _server(self, _: Request) -> Response:
        return JSONResponse(SERVER)

    async def _live(self, _: Request) -> Response:
        return JSONResponse({"live": True})

    async def _ready(self, _: Request) -> Response:
        is_ready = self._health.state == "ready"
        return JSONResponse({"ready": is_ready}, 200 if is_ready else 503)

    async def _metadata(self, request: Request) -> Response:
        model, number = _named(request)
        found = await self._door.run(request, lambda _: self._inference.metadata(model, number))
        return JSONResponse(found)

    async def _model_ready(self, request: Request) -> Response:
        model, number = _named(request)
        await self._door.run(request, lambda _: self._inference.model(model, number))
        return JSONResponse({"name": model, "ready": True})

    async def _infer(self, request: Request) -> Response:
        model, number = _named(request)
        length = _header_length(request)
        reply = await self._door.run(request, lambda body: self._inference.infer(model, number, Message(body, length)))
        if reply.header_bytes is None:
            return Response(reply.body, media_type=JSON)
        headers = {LENGTH_HEADER: str(reply.header_bytes)}
        return Response(reply.body, headers=headers, media_type="application/octet-stream")

    def _guarded(self, endpoint: Endpoint) -> Endpoint:
        return self._door.guarded(endpoint, _render_error)


def _named(request: Request) -> tuple[str, str]:
    return request.path_params["model"], request.path_params.get("version", "")


def _header_length(request: Request) -> int | None:
    """How much of the body is JSON; None: all of it."""
    text = request.headers.get(LENGTH_HEADER)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit()) or len(text) > 9:
        raise RefusedError(Reason.INVALID, f"{LENGTH_HEADER} is a number of bytes")
    return int(text)


def _render_error(_: Reason, message: str) -> bytes:
    return msgspec.json.encode({"error": message})
