"""Features over HTTP."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.featurestore_serving.platform import NOW, Running, running, settings
from tests.services import eventually

pytestmark = pytest.mark.services

ONE = {"features": ["activity"], "keys": {"user_id": [1]}}
TIME = NOW.isoformat().replace("+00:00", "Z")


def present(value: object) -> Mapping[str, object]:
    return {"value": value, "status": "PRESENT", "event_timestamp": TIME}


MISSING = {"value": None, "status": "MISSING", "event_timestamp": None}


def test_features_of_a_view(server: Running) -> None:
    reply = server.post({"features": ["activity"], "keys": {"user_id": [3, 999]}})
    assert reply.status == 200
    assert reply.headers["content-type"] == "application/json"
    assert reply.json == {
        "features": ["score", "clicks", "is_new", "city", "visits_1h"],
        "rows": [
            {
                "score": present(0.75),
                "clicks": present(3),
                "is_new": present(False),
                "city": present("city 3"),
                "visits_1h": present(1),
            },
            {**dict.fromkeys(["score", "clicks", "is_new", "city"], MISSING), "visits_1h": {**MISSING, "value": 0}},
        ],
    }


def test_features_of_a_model_stand_in_its_order(server: Running) -> None:
    reply = server.post({"model": "risk", "keys": {"user_id": [4]}})
    assert reply.json == {"features": ["clicks", "score"], "rows": [{"clicks": present(4), "score": present(1.0)}]}
    assert list(json.loads(reply.body)["rows"][0]) == ["clicks", "score"]


def test_rows_come_back_as_they_were_asked_for(server: Running) -> None:
    users = [5, 1, 5, 77, 5, 12345]
    found = server.post({"features": ["clicks"], "keys": {"user_id": users}}).json["rows"]
    assert [row["clicks"]["value"] for row in found] == [5, 1, 5, 77, 5, None]


def test_statuses(server: Running) -> None:
    [row] = server.post({"features": ["activity"], "keys": {"user_id": [200]}}).json["rows"]
    assert {name: value["status"] for name, value in row.items()} == {
        "score": "PRESENT",
        "clicks": "NULL",
        "is_new": "PRESENT",
        "city": "EXPIRED",
        "visits_1h": "PRESENT",
    }
    assert row["city"]["value"] is None
    assert row["visits_1h"]["value"] == 0


def test_numbers_that_json_does_not_have(server: Running) -> None:
    [row] = server.post({"features": ["activity"], "keys": {"user_id": [201]}}).json["rows"]
    assert row["score"] == present("NaN")
    assert row["clicks"] == present(2**63 - 1)
    assert row["city"] == present('ü"null\n')


def test_several_entities_in_one_request(server: Running) -> None:
    asked = {"features": ["clicks", "last_score"], "keys": {"user_id": [1, 2], "shop": ["a|b", "a|b"]}}
    first, second = server.post(asked).json["rows"]
    assert first == {"clicks": present(1), "last_score": present(0.5)}
    assert second == {"clicks": present(2), "last_score": MISSING}


def test_derived_features_with_values_of_the_request(server: Running) -> None:
    asked = {
        "features": ["doubled", "score", "noted"],
        "keys": {"user_id": [8, 200, 999], "shop": ["x", "x", "x"]},
        "request": {"amount": [3, 1.5, 2], "note": ["hm", None, ""]},
    }
    reply = server.post(asked)
    assert reply.json["features"] == ["doubled", "score", "noted"]
    first, no_clicks, unknown = reply.json["rows"]
    assert first == {"doubled": present(2 * 3 * 2.0 / 8), "score": present(2.0), "noted": present("hm")}
    assert no_clicks["doubled"]["status"] == "NULL"
    assert unknown == {
        "doubled": {"value": None, "status": "NULL", "event_timestamp": None},
        "score": MISSING,
        "noted": {"value": "", "status": "PRESENT", "event_timestamp": None},
    }


def test_no_rows_is_an_empty_reply(server: Running) -> None:
    assert server.post({"features": ["score"], "keys": {"user_id": []}}).json == {"features": ["score"], "rows": []}


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        (b"", 400, "not JSON"),
        (b"{", 400, "not JSON"),
        (b'{"keys": {"\xff": []}}', 400, "not JSON"),
        (b"[" * 100_000, 422, "Expected `object`"),
        (b'{"keys": {"user_id": [NaN]}}', 400, "not JSON"),
        (b'{"features": ["score"], "keys": {"user_id": [1]}, "keys": {"user_id": [2]}}', 422, "'keys' stands twice"),
        (b'{"features": ["score"], "keys": {"user_id": [1], "user_\\u0069d": [2]}}', 422, "'user_id' stands twice"),
        ([1], 422, "Expected `object`, got `array`"),
        ({**ONE, "feature": []}, 422, "unknown field `feature`"),
        ({"features": ["scor"], "keys": {"user_id": [1]}}, 422, "has no feature 'scor'; did you mean 'score'?"),
        ({"features": ["hidden"], "keys": {"user_id": [1]}}, 422, "'hidden' of view 'activity' is not online"),
        ({"model": "riks", "keys": {"user_id": [1]}}, 422, "there is no model 'riks'; did you mean 'risk'?"),
        ({"keys": {"user_id": [1]}}, 422, "ask for features by name, or for the features of a model"),
        ({**ONE, "model": "risk"}, 422, "one of them"),
        ({"features": ["score"]}, 422, "key column 'user_id' is missing in 'keys'"),
        ({"features": ["score"], "keys": {"user_id": [1], "userid": [1]}}, 422, "'userid' is not needed by these feat"),
        ({"features": ["score"], "keys": {"user": [1]}}, 422, "key column 'user_id' is missing"),
        ({"features": ["score"], "keys": {"user_id": ["1"]}}, 422, "row 0: '1' is a text; it must be a whole number"),
        ({"features": ["score"], "keys": {"user_id": [1, 1.0]}}, 422, "'user_id', row 1: 1.0 is a number; it must"),
        ({"features": ["score"], "keys": {"user_id": [True]}}, 422, "True is true or false; it must be a whole number"),
        ({"features": ["score"], "keys": {"user_id": [2**63]}}, 422, "is too large"),
        ({"features": ["score"], "keys": {"user_id": [None]}}, 422, "got `null`"),
        ({"features": ["last_score"], "keys": {"user_id": [1], "shop": [1]}}, 422, "whole number; it must be a text"),
        ({"features": ["last_score"], "keys": {"user_id": [1], "shop": [""]}}, 422, "an empty text cannot identify"),
        ({"features": ["last_score"], "keys": {"user_id": [1], "shop": ["x" * 5000]}}, 422, "is too large"),
        ({"features": ["last_score"], "keys": {"user_id": [1], "shop": []}}, 422, "user_id has 1, shop has 0"),
        ({"features": ["score"], "keys": {"user_id": [1]}, "request": {"amount": [1]}}, 422, "'amount' is not needed"),
        ({"features": ["noted"], "keys": {"user_id": [1], "shop": ["x"]}}, 422, "request value 'amount' is missing"),
        (
            {
                "features": ["noted"],
                "keys": {"user_id": [1], "shop": ["x"]},
                "request": {"amount": [None], "note": [""]},
            },
            422,
            "'amount', row 0: None is null; it must be a number",
        ),
        ({"features": ["score"], "keys": {"user_id": list(range(1001))}}, 413, "1001 rows in one request; at most 10"),
        ({"features": ["score"] * 1001, "keys": {"user_id": [1]}}, 413, "1001 features in one request; at most 1000"),
        (b" " * (2**20 + 1), 413, "more than 1048576 bytes"),
    ],
)  # fmt: skip
def test_what_cannot_be_answered_is_refused_with_advice(
    server: Running, body: object, status: int, message: str
) -> None:
    reply = server.post(body)
    assert (reply.status, reply.headers["content-type"]) == (status, "application/json")
    assert message in reply.message


@pytest.mark.parametrize("timeout", ["0", "-1", "soon", "1.5", "", "٣", "9" * 10])
def test_a_deadline_that_is_none_is_refused(server: Running, timeout: str) -> None:
    if not timeout.isascii():
        timeout = timeout.encode().decode("latin-1")
    assert server.post(ONE, x_timeout_ms=timeout).status == 422


def test_other_paths_methods_and_types(server: Running) -> None:
    assert server.get("/v3").status == 404
    assert server.ask("DELETE", "/v1/features", None, {}).status == 405
    plain = server.ask("POST", "/v1/features", b"{}", {"content-type": "text/plain"})
    assert (plain.status, "application/json" in plain.message) == (422, True)


def test_what_can_be_asked_for_is_listed(server: Running) -> None:
    listed = server.get("/v1/features").json
    views = {one["view"]: one for one in listed["views"]}
    stored = {"score": "float", "clicks": "int", "is_new": "bool", "city": "str", "visits_1h": "int"}
    assert views["activity"]["features"] == stored
    assert views["visits_of"]["keys"] == ["user_id", "shop"]
    for derived in ("ratios", "chance"):  # what their inputs are asked for by, inputs of inputs too
        assert views[derived]["keys"] == ["user_id", "shop"]
        assert views[derived]["request"] == {"amount": "float", "note": "str | null"}
    assert listed["models"] == [{"model": "risk", "features": ["clicks", "score"]}]


def test_state_metrics_and_documents(server: Running) -> None:
    server.post(ONE)
    assert server.get("/health").json == {"state": "ready", "note": ""}
    assert server.get("/ready").status == 200
    assert 'fs_server_requests_total{outcome="ANSWERED",transport="http"}' in server.get("/metrics").body.decode()
    assert server.get("/openapi.json").json["openapi"] == "3.1.0"
    page = server.get("/")
    assert "POST /v1/features" in page.body.decode()
    assert page.headers["content-security-policy"].startswith("default-src 'none'")


def test_the_token_is_asked_for_where_there_is_something_to_see(filled: str, data: Path) -> None:
    with running(settings(filled, data, token="s3cret")) as server:
        for sent in ({}, {"authorization": "Bearer s3cre"}, {"authorization": "s3cret"}, {"authorization": "Bearer é"}):
            reply = server.post(ONE, **{k: v.encode().decode("latin-1") for k, v in sent.items()})
            assert (reply.status, reply.headers["www-authenticate"]) == (401, "Bearer")
            assert "s3cret" not in reply.message
        assert server.get("/metrics").status == server.get("/v1/features").status == 401
        assert server.get("/health").status == server.get("/openapi.json").status == server.get("/").status == 200
        assert server.post(ONE, authorization="Bearer s3cret").status == 200


def test_ready_says_no_before_the_server_stops(filled: str, data: Path) -> None:
    with running(settings(filled, data, drain_s=2.0)) as server:
        server.daemon.request_stop()
        eventually(lambda: server.get("/ready").status == 503)
        assert server.get("/ready").json == {"state": "not ready", "note": "stopping"}
        assert server.post(ONE).status == 200  # still taken
