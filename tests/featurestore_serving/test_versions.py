"""While a second version of a view comes, goes active and back: who named a version keeps it, who did not gets one."""

from collections.abc import Callable, Generator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from threading import Event

import grpc
import pytest

import featurestore as fs
from featurestore.online.redis_store import RedisOnlineStore
from featurestore.online.values import Activation
from featurestore_serving.pb import serving_pb2 as pb
from featurestore_serving.pb.serving_pb2_grpc import FeaturesStub
from tests.featurestore_serving.platform import EVENTS, USER, Running, rows, running, settings
from tests.services import eventually

pytestmark = pytest.mark.services

PRICES = fs.FeatureView(
    "prices",
    USER,
    EVENTS,
    [fs.Feature("low", float, "score", online=True), fs.Feature("high", float, "score", online=True)],
)
CENTS = replace(PRICES, features=[replace(one, sql="100 * score") for one in PRICES.row_features], version=2)
PINNED = fs.Model("pinned", [PRICES["low"], PRICES["high"]])
PROJECT = fs.Project((PRICES, CENTS), (PINNED,))
USERS = range(50)
SWITCHES = 4
OF_MODEL, NAMED = {"model": "pinned"}, {"features": ["low", "high"]}
IDS = {"user_id": pb.KeyColumn(integers=pb.Integers(values=USERS))}


def values(view: fs.FeatureView) -> dict[str, dict[str, object]]:
    factor = 1 if view is PRICES else 100
    return {str(user): {"low": factor * user / 7, "high": factor * (user / 7 + 0.5)} for user in USERS}


def by_http(server: Running, asked: Mapping[str, object]) -> list[tuple[object, ...]]:
    """The values of each row."""
    reply = server.post({**asked, "keys": {"user_id": list(USERS)}})
    assert reply.status == 200, reply.body
    return [tuple(row[name]["value"] for name in ("low", "high")) for row in reply.json["rows"]]  # type: ignore[index, union-attr]


def by_grpc(server: Running, asked: pb.GetFeaturesRequest) -> list[tuple[object, ...]]:
    with grpc.insecure_channel(f"127.0.0.1:{server.service.grpc_port}") as channel:
        reply = FeaturesStub(channel).GetFeatures(asked, timeout=20)
    return list(zip(*(column.numbers.values for column in reply.columns), strict=True))


@contextmanager
def repeated(look: Callable[[], None]) -> Generator[list[int]]:
    """Look again and again meanwhile; what a look raises is raised at the end."""
    stopping, looks = Event(), [0]

    def run() -> None:
        while not stopping.is_set():
            look()
            looks[0] += 1

    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(run)
        try:
            yield looks
        finally:
            stopping.set()
        done.result()


def test_nobody_gets_a_mix_and_a_pinned_model_nothing_new(redis_url: str, tmp_path: Path) -> None:
    both = [[tuple(row.values()) for row in values(view).values()] for view in (PRICES, CENTS)]
    seen: set[int] = set()

    def look() -> None:
        assert by_http(server, OF_MODEL) == both[0]  # equal to the bit
        assert by_grpc(server, pb.GetFeaturesRequest(model="pinned", keys=IDS)) == both[0]
        seen.add(both.index(by_http(server, NAMED)))  # every row of the same version
        seen.add(both.index(by_grpc(server, pb.GetFeaturesRequest(features=["low", "high"], keys=IDS))))

    with (
        closing(RedisOnlineStore(redis_url)) as online,
        running(settings(redis_url, tmp_path), project=PROJECT) as server,
    ):
        epoch = online.begin()
        online.push(PRICES, rows(PRICES, values(PRICES)), [1])
        online.activate([Activation("prices", 1, 1, epoch)])
        with repeated(look) as looks:
            eventually(lambda: looks[0] > 2)
            for number, (user, row) in enumerate(values(CENTS).items()):  # a backfill
                online.push(CENTS, rows(CENTS, {user: row}), [2 + number])
            assert seen == {0}
            for switch in range(SWITCHES):
                wanted = (switch + 1) % 2
                seen.clear()
                online.activate([Activation("prices", wanted + 1, 100 + switch, epoch)])
                eventually(lambda wanted=wanted: wanted in seen, 30)
