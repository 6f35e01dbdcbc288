"""The HTTP API in OpenAPI 3.1, and as a page to read."""

from collections.abc import Mapping, Sequence
from html import escape
from importlib.metadata import version

import msgspec

from featurestore_serving.features import LONGEST_TEXT, Limits
from featurestore_serving.refusals import Reason

Document = Mapping[str, object]

_ROWS = "one value per row; all columns have the same length"


def specification(limits: Limits, body_bytes: int, timeout_s: float) -> Document:
    """The document; it names no declared feature, so everyone may read it."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Feature server",
            "version": version("featurestore-dagster"),
            "description": (
                "The newest values of features. A request has at most "
                f"{limits.rows} rows, {limits.features} features, {limits.values} values and {body_bytes} bytes, and "
                "is answered or refused "
                f"within {timeout_s:g} s. Whole numbers are exact to 64 bits. "
                "Below /v2 the models in production answer the Open Inference Protocol."
            ),
        },
        "security": [{}, {"token": []}],
        "paths": {
            "/v1/features": {"post": _get_features(limits, timeout_s), "get": _list_features()},
            "/v1/score": {"post": _score(timeout_s)},
            "/health": {"get": _plain("It runs.", "State", secured=False)},
            "/ready": {
                "get": _plain(
                    "It can answer; 503 while it starts, drains or misses a service.",
                    "State",
                    secured=False,
                    also=(503,),
                )
            },
            "/metrics": {"get": _metrics()},
        },
        "components": {"schemas": _schemas(limits), "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}},
    }


def page(document: Mapping[str, object]) -> str:
    """The document as a page that needs nothing else."""
    read = msgspec.convert(document, type=_Document)
    parts = [f"<h1>{escape(read.info['title'])} <small>{escape(read.info['version'])}</small></h1>"]
    parts.append(f"<p>{escape(read.info['description'])}</p><p><a href='/openapi.json'>openapi.json</a></p>")
    for path, operations in read.paths.items():
        for method, operation in operations.items():
            replies = "".join(
                f"<dt>{code}</dt><dd>{escape(one.description)}</dd>" for code, one in operation.responses.items()
            )
            parts.append(
                f"<h2><code>{method.upper()} {path}</code></h2><p>{escape(operation.summary)}</p><dl>{replies}</dl>"
            )
    for name, schema in read.components["schemas"].items():
        shown = msgspec.json.format(msgspec.json.encode(schema), indent=2).decode()
        parts.append(f"<h3 id='{name}'>{name}</h3><pre>{escape(shown)}</pre>")
    head = f"<meta charset=utf-8><title>Feature server</title><style>{_STYLE}</style>"
    return f"<!doctype html><html lang=en>{head}{''.join(parts)}</html>"


class _Reply(msgspec.Struct):
    description: str


class _Operation(msgspec.Struct):
    summary: str
    responses: dict[str, _Reply]


class _Document(msgspec.Struct):
    info: dict[str, str]
    paths: dict[str, dict[str, _Operation]]
    components: dict[str, dict[str, object]]


_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:50rem;margin:2rem auto;padding:0 1rem}"
    "pre{background:#f4f4f4;padding:1rem;overflow:auto}dt{float:left;font-weight:bold}dd{margin-left:4rem}"
)


def _get_features(limits: Limits, timeout_s: float) -> Document:
    example = {"features": ["credit_profile"], "keys": {"user_id": [1, 2]}}
    return {
        "summary": "The newest values of features, by their names or by the model that expects them.",
        "operationId": "getFeatures",
        "parameters": [_deadline(timeout_s)],
        "requestBody": _body("FeatureRequest", example),
        "responses": {
            "200": _reply("A row of the reply for each row of the request, in order.", "FeatureReply"),
            **_errors(400, 401, 408, 413, 422, 500, 503, 504),
        },
    }


def _score(timeout_s: float) -> Document:
    example = {"model": "credit_risk_v1", "keys": {"user_id": [1, 2]}}
    return {
        "summary": "Scores by the version of a model that is in production, from the newest values of its features.",
        "operationId": "score",
        "parameters": [_deadline(timeout_s)],
        "requestBody": _body("ScoreRequest", example),
        "responses": {
            "200": _reply("A score, or why there is none, for each row of the request, in order.", "ScoreReply"),
            **_errors(400, 401, 404, 408, 413, 422, 500, 503, 504),
        },
    }


def _deadline(timeout_s: float) -> Document:
    return {
        "name": "X-Timeout-Ms",
        "in": "header",
        "description": f"The caller's deadline; at most {timeout_s:g} s.",
        "schema": {"type": "integer", "minimum": 1, "maximum": 999_999_999},
    }


def _body(schema: str, example: Document) -> Document:
    return {"required": True, "content": {"application/json": {"schema": _ref(schema), "example": example}}}


def _list_features() -> Document:
    return {
        "summary": "What can be asked for: views, features, and models.",
        "operationId": "listFeatures",
        "responses": {"200": _reply("The declared views and models.", "Catalogue"), **_errors(401)},
    }


def _metrics() -> Document:
    text = {"description": "For Prometheus.", "content": {"text/plain": {"schema": {"type": "string"}}}}
    return {"summary": "What was counted.", "responses": {"200": text, **_errors(401)}}


def _plain(summary: str, schema: str, *, secured: bool, also: tuple[int, ...] = ()) -> Document:
    replies = {str(code): _reply(summary, schema) for code in (200, *also)}
    return {"summary": summary, "responses": replies, **({} if secured else {"security": [{}]})}


_MEANINGS = {
    400: "It is not JSON.",
    401: "The token is missing or wrong.",
    404: "No version of the model is in production.",
    408: "The request did not come in time.",
    413: "The request is too large.",
    422: "It cannot be answered, however often it is sent; the message says what to change.",
    500: "A fault of the server.",
    503: "Too much at once, or a service behind this one does not answer; try again after `Retry-After` seconds.",
    504: "No answer in time.",
}


def _errors(*codes: int) -> Document:
    return {str(code): _reply(_MEANINGS[code], "Error") for code in codes}


def _reply(description: str, schema: str) -> Document:
    return {"description": description, "content": {"application/json": {"schema": _ref(schema)}}}


def _ref(name: str) -> Document:
    return {"$ref": f"#/components/schemas/{name}"}


def _schemas(limits: Limits) -> Document:
    text = {"type": "string", "maxLength": LONGEST_TEXT}
    key = {"anyOf": [{**text, "minLength": 1}, {"type": "integer", "minimum": -(2**63), "maximum": 2**63 - 1}]}
    scalar = [text, {"type": "number"}, {"type": "boolean"}, {"type": "null"}]
    status = {"type": "string", "enum": ["PRESENT", "NULL", "MISSING", "EXPIRED"]}
    time = {"anyOf": [{"type": "string", "format": "date-time"}, {"type": "null"}]}
    value = {
        "anyOf": scalar,
        "description": "null unless PRESENT. What JSON has no number for is a text: NaN, Infinity, -Infinity.",
    }
    names = {"type": "array", "items": {"type": "string", "minLength": 1}, "maxItems": limits.features}
    columns = {
        "keys": _columns(f"Key column → {_ROWS}.", key, limits),
        "request": _columns(f"Request value of derived features → {_ROWS}.", {"anyOf": scalar}, limits),
    }
    features = {"type": "object", "additionalProperties": _ref("FeatureValue")}
    return {
        "FeatureRequest": _object(
            ["keys"],
            features={**names, "description": "Features, or views for their online features; or give a model."},
            model={"type": "string", "description": "The features that this model expects, in its order."},
            **columns,
        ),
        "FeatureReply": _object(
            features={**names, "description": "In the order they were asked for."},
            rows={"type": "array", "items": features},
        ),
        "ScoreRequest": _object(
            ["model", "keys"], model={"type": "string", "description": "The id of a model in production."}, **columns
        ),
        "ScoreReply": _object(
            model={"type": "string"},
            version={"type": "string", "description": "Which one all of these scores are by."},
            rows={"type": "array", "items": _ref("Score")},
        ),
        "Score": _object(
            score={"type": ["number", "null"], "description": "null: there is a reason."},
            reason={
                "type": ["string", "null"],
                "description": "Why there is no score: `age_years is MISSING`.",
            },
            features={**features, "description": "What was read for it."},
        ),
        "FeatureValue": _object(value=value, status=status, event_timestamp=time),
        "Catalogue": _object(
            views={"type": "array", "items": {"type": "object"}}, models={"type": "array", "items": {"type": "object"}}
        ),
        "State": _object(state={"type": "string"}, note={"type": "string"}),
        "Error": _object(
            error=_object(reason={"type": "string", "enum": [one.value for one in Reason]}, message={"type": "string"})
        ),
    }


def _columns(description: str, item: Document, limits: Limits) -> Document:
    column = {"type": "array", "items": item, "maxItems": limits.rows}
    return {"type": "object", "description": description, "additionalProperties": column}


def _object(required: Sequence[str] | None = None, **properties: Document) -> Document:
    """An object of these members; all are required unless it is said which."""
    needed = list(properties) if required is None else list(required)
    return {"type": "object", "additionalProperties": False, "required": needed, "properties": properties}
