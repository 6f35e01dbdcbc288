"""Tiles as Redis keeps them: the script decides as the Python does; what is stored is read back, damage is not."""

import random
from typing import Any

import pyarrow as pa
import pytest
import redis

import featurestore as fs
from featurestore.errors import FormatError, TerminalError
from featurestore.online.connection import PACKAGE, script
from featurestore.online.keys import Keys
from featurestore.online.tiles import GUARD, encode_tiles, overwrites, read_windows
from featurestore.online.values import Status
from tests.featurestore.online.examples import EVENTS, SECOND, USER


def view(*windows: str, function: Any = "count", dtype: Any = float) -> fs.FeatureView:
    aggregation = fs.Aggregation("a", function, "clicks", windows=windows, dtype=dtype, online=True)
    return fs.FeatureView("v", USER, EVENTS, [aggregation])


def stored(of: fs.FeatureView, *tiles: tuple[int, Any]) -> list[bytes]:
    """The values of a ring with these tiles: each its number and its part."""
    [ring] = of.rings
    table = pa.table(
        {
            "_hop_us": [ring.hop_us] * len(tiles),
            "entity_id": ["1"] * len(tiles),
            "_k": [k for k, _ in tiles],
            "_newest_us": [k * ring.hop_us for k, _ in tiles],
            "commit_seq": [1] * len(tiles),
            "a": pa.array([part for _, part in tiles]),
        }
    )
    [only] = encode_tiles(of, table, Keys())
    return list(only.fields.values())


def read(of: fs.FeatureView, ring: list[bytes], second: float) -> Any:
    [found] = read_windows(tuple(of.windows.items()), ring, int(second * SECOND)).values()
    return found


@pytest.mark.services
def test_the_script_decides_as_the_python_does(redis_url: str) -> None:
    chance = random.Random(3)
    kept: dict[bytes, bytes] = {}
    tiles = script(PACKAGE, "tiles.lua")
    with redis.Redis.from_url(redis_url) as client:
        client.hset("ring", b"damaged", b"short")
        kept[b"damaged"] = b"short"
        for turn in range(300):
            names = chance.sample([b"0", b"1", b"2", b"damaged"], chance.randint(1, 3))
            fields = {
                name: GUARD.pack(chance.choice([-5, -1, 0, 7, 2**52]), chance.choice([1, 2**52, 2**53])) + b"%d" % turn
                for name in names
            }
            wanted = {name: value for name, value in fields.items() if overwrites(value, kept.get(name))}
            kept |= wanted
            pairs = [part for pair in fields.items() for part in pair]
            assert client.eval(tiles.text, 1, "ring", *pairs) == len(wanted)  # type: ignore[arg-type]
        assert client.hgetall("ring") == kept


def test_sums_of_whole_numbers_have_no_size() -> None:
    of = view("24s", function="sum", dtype=int)
    large = pa.scalar(2**63, pa.decimal128(38, 0)).as_py()
    assert read(of, stored(of, (1, large), (2, -(2**62))), 2).value == 2**62
    with pytest.raises(TerminalError, match="feature 'a_24s': a sum does not fit"):
        read(of, stored(of, (1, large)), 1)


@pytest.mark.parametrize("part", ["x" * 10_000, "", "é\0"])
def test_texts_come_back(part: str) -> None:
    of = view("24s", function="last", dtype=str)
    assert read(of, stored(of, (1, part)), 1).value == part


def test_a_tile_that_no_window_reaches_is_not_counted_and_its_time_is_known() -> None:
    of = view("24s")
    found = read(of, stored(of, (100, 3)), 9_000)
    assert (found.value, found.status, found.event_timestamp.timestamp()) == (0, Status.PRESENT, 100)


def test_of_tiles_for_one_slot_the_newest_is_kept() -> None:
    of = view("24s")  # 25 slots
    ring = stored(of, (100, 2), (125, 1), (75, 4))
    assert len(ring) == 1
    assert read(of, ring, 125).value == 1


@pytest.mark.parametrize(
    "damage", [b"", b"short", GUARD.pack(1, 1), GUARD.pack(1, 1) + b"\xc1", GUARD.pack(1, 1) + b"\x01"]
)
def test_damage_is_not_read(damage: bytes) -> None:
    with pytest.raises(FormatError, match="a ring of tiles"):
        read(view("24s"), [damage], 1)


def test_what_rings_hold_names_them() -> None:
    others = [
        view("24s"),
        view("25s"),
        view("24s", "10m"),
        view("24s", function="sum"),
        view("24s", function="sum", dtype=int),
    ]
    assert len({tuple(ring.name for ring in one.rings) for one in others}) == len(others)
    assert view("24s").rings[0].name.startswith("1s.")


def test_windows_of_one_hop_share_a_ring() -> None:
    rings = view("24s", "48s", "2m").rings
    assert [(ring.hop_us // SECOND, ring.slots) for ring in rings] == [(1, 49), (5, 25)]


def test_only_online_aggregations_are_kept() -> None:
    offline = fs.FeatureView("v", USER, EVENTS, [fs.Aggregation("a", "count", windows=("1h",))])
    assert offline.rings == ()
    assert offline["a_1h"].window is None
