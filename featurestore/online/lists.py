"""Which ledger lines are pushed, as one node of Redis keeps it: behind the values, so that it is lost with them."""

from collections.abc import Sequence
from typing import cast

from featurestore.definitions.view import FeatureView
from featurestore.entity_id import Piece
from featurestore.online.connection import PACKAGE, Wire, script
from featurestore.online.keys import Keys
from featurestore.online.values import Pushed

LINES = 5_000  # ledger lines per script call, so that none holds the server for long


class Lists:
    """The lists of one view version on one node, and the pieces of a rebuild that are noted there."""

    def __init__(self, keys: Keys, view: FeatureView, mark: str) -> None:
        self._store, self._position = keys.store(mark), keys.position(view, mark)
        self._above, self._pieces = f"{self._position}:above", f"{self._position}:pieces"
        self._log = keys.log(view, mark)

    def read(self, wire: Wire) -> Pushed:
        # No MULTI: a Redis 6.2 without memory refuses it. A line that is settled in between is in both.
        commands = [("ZRANGE", self._above, 0, -1), ("MGET", self._position, self._log)]
        above, (settled, log) = cast("tuple[list[bytes], tuple[bytes | None, bytes | None]]", wire.pipeline(commands))
        return Pushed(int(settled or 0), frozenset(map(int, above)), (log or b"").decode())

    def mark(self, wire: Wire, epoch: bytes, lines: Sequence[int]) -> bool:
        """List lines; False if Redis was emptied since it told the epoch."""
        keys = (self._store, self._position, self._above)
        chunks = (lines[start : start + LINES] for start in range(0, len(lines), LINES))
        return all(wire.run(script(PACKAGE, "mark.lua"), keys, [epoch, *chunk]) == 1 for chunk in chunks)

    def settle(self, wire: Wire, lines: Sequence[int], above: int, log: str) -> None:
        settled = int(cast("bytes", wire.call("GET", self._position) or b"0"))
        if settled < above:
            return
        if log:
            wire.call("SETNX", self._log, log)
        ahead = [line for line in lines if line > settled]
        base = settled
        for start in range(0, len(ahead), LINES):
            chunk = ahead[start : start + LINES]
            keys = (self._position, self._above)
            reached = int(cast("bytes", wire.run(script(PACKAGE, "settle.lua"), keys, [base, *chunk])))
            if reached < chunk[-1]:
                return
            base = chunk[-1]

    def fill(self, wire: Wire, epoch: bytes, piece: Piece, line: int, log: str) -> bool:
        """Note a piece; False if Redis was emptied since it told the epoch."""
        keys = (self._store, self._position, self._above, self._pieces, self._log)
        return wire.run(script(PACKAGE, "fill.lua"), keys, [epoch, piece.number, piece.of, line, log]) == 1

    def unfilled(self, wire: Wire, of: int, log: str) -> set[int]:
        whose, *lines = cast("list[bytes | None]", wire.call("HMGET", self._pieces, "whose", *map(str, range(of))))
        is_same = whose == f"{of} {log}".encode()
        return {number for number, line in enumerate(lines) if line is None or not is_same}


def everywhere(listed: Sequence[Pushed]) -> Pushed:
    """What all nodes list; of several logs, a text that is none of them."""
    position = min(one.position for one in listed)
    some = {line for one in listed for line in one.above if line > position}
    logs = {one.log for one in listed if one.log}
    return Pushed(position, frozenset(line for line in some if all(line in one for one in listed)), " ".join(logs))
