"""What a push sends: the calls of the scripts that write rows and tiles, node by node."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import cast

import numpy as np
import pyarrow as pa
from redis.exceptions import NoScriptError

from featurestore.definitions.view import FeatureView
from featurestore.online.connection import PACKAGE, Script, Wire, raise_first, script
from featurestore.online.keys import Keys, entity_key
from featurestore.online.servers import Topology
from featurestore.online.tiles import RingFields
from featurestore.online.values import PutCounts
from featurestore.online.writer import CHUNK_ROWS, Encoded


@dataclass(frozen=True, slots=True)
class Push:
    """What is to be written, and listed when it is."""

    view: FeatureView
    rows: pa.Table
    tiles: pa.Table | None
    commit_seqs: Sequence[int]
    since: str | None

    def parts(self, topology: Topology, keys: Keys) -> "list[Push]":
        """What is for each node."""
        count, prefix = len(topology.nodes), keys.entity_prefix(self.view.entity.name)
        rows = _parts(self.rows, topology, prefix)
        tiles = [None] * count if self.tiles is None else _parts(self.tiles, topology, prefix)
        return [replace(self, rows=rows[node], tiles=tiles[node]) for node in range(count)]


def _parts(table: pa.Table, topology: Topology, prefix: bytes) -> list[pa.Table]:
    """The rows of each node."""
    ids = cast("list[str]", table["entity_id"].to_pylist())
    places = np.array([topology.place(entity_key(prefix, entity_id)) for entity_id in ids])
    return [table.filter(pa.array(places == number)) for number in range(len(topology.nodes))]


def put_rows(wire: Wire, chunk: Encoded) -> PutCounts:
    """Run newest.lua for each row."""
    written = sum(_run_all(wire, script(PACKAGE, "newest.lua"), chunk.frames, chunk.rows))
    return PutCounts(written, chunk.rows - written, long_values=chunk.long_values)


def put_tiles(wire: Wire, rings: Iterable[RingFields]) -> PutCounts:
    """Run tiles.lua for each ring of each entity."""
    written, tiles = 0, script(PACKAGE, "tiles.lua")
    each = iter(rings)
    while chunk := list(islice(each, CHUNK_ROWS)):
        written += sum(_run_all(wire, tiles, lambda sha, c=chunk: b"".join([one.frame(sha) for one in c]), len(chunk)))
    return PutCounts(tiles=written)


def _run_all(wire: Wire, of: Script, frames: Callable[[bytes], bytes | memoryview], count: int) -> list[int]:
    """The replies to `count` calls of a script."""
    data = frames(of.sha)
    replies = wire.send(data, count)
    if any(isinstance(reply, NoScriptError) for reply in replies):  # SCRIPT FLUSH by someone, just now
        wire.load(of)
        replies = wire.send(data, count)
    return cast("list[int]", raise_first(replies))
