"""The online store in Redis."""

import logging
import secrets
from collections.abc import Sequence
from datetime import datetime
from itertools import islice
from typing import cast

import pyarrow as pa
from redis.exceptions import NoScriptError

from featurestore.definitions.feature import FeatureOf
from featurestore.definitions.view import FeatureView
from featurestore.errors import FormatError, StoreUnavailableError
from featurestore.online.codec import COMPACT_BYTES, FORMAT
from featurestore.online.connection import RedisServer, Wire, raise_first, script
from featurestore.online.keys import Keys
from featurestore.online.reader import Plans, to_micros
from featurestore.online.store import Read
from featurestore.online.values import OnlineValue, Pushed, PutCounts
from featurestore.online.writer import Encoded, encoded, newest_rows

log = logging.getLogger(__name__)

LINES = 5_000  # ledger lines per script call, so that none holds the server for long

_PACKAGE = "featurestore.online"


class RedisOnlineStore:
    """OnlineStore over one Redis server (6.2 or newer, or Valkey); thread-safe.

    Raises, from every method: StoreUnavailableError (no answer within `timeout_s`), TransientError (out of memory,
    read-only), SettingsError (credentials), FormatError (written by a newer version).
    """

    def __init__(self, url: str, *, namespace: str = "", timeout_s: float = 5.0) -> None:
        self._server = RedisServer(url, timeout_s=timeout_s)
        self._keys = Keys(namespace)
        self._plans = Plans(self._keys)

    def push(self, view: FeatureView, rows: pa.Table, commit_seqs: Sequence[int]) -> PutCounts:
        """Write values, then list the lines, on one connection; see OnlineStore.

        Started once more, from the first value, when the connection breaks or Redis is emptied meanwhile.
        """
        newest = newest_rows(rows)
        folded = PutCounts(folded=rows.num_rows - newest.num_rows)
        try:
            counts = self._push(view, newest, commit_seqs)
        except StoreUnavailableError as error:
            log.warning("push of %s starts again: %s", view.target, error)
            counts = self._push(view, newest, commit_seqs)
        if counts.long_values:
            log.warning(
                "%d values of %s take more than %d bytes, which multiplies the memory of their entities",
                counts.long_values, view.target, COMPACT_BYTES,
            )  # fmt: skip
        return folded + counts

    def pushed(self, view: FeatureView) -> Pushed:
        position = self._keys.position(view)
        with self._server.wire() as wire:
            commands = [("MULTI",), ("GET", position), ("ZRANGE", f"{position}:above", 0, -1), ("EXEC",)]
            settled, above = cast("tuple[bytes | None, list[bytes]]", wire.pipeline(commands)[-1])
        return Pushed(int(settled or 0), frozenset(map(int, above)))

    def settle(self, view: FeatureView, lines: Sequence[int], *, above: int = 0) -> None:
        position = self._keys.position(view)
        keys = (position, f"{position}:above")
        with self._server.wire() as wire:
            settled = int(cast("bytes", wire.call("GET", position) or b"0"))
            if settled < above:
                return
            ahead = [line for line in lines if line > settled]
            base = settled
            for start in range(0, len(ahead), LINES):
                chunk = ahead[start : start + LINES]
                reached = int(cast("bytes", wire.run(script(_PACKAGE, "settle.lua"), keys, [base, *chunk])))
                if reached < chunk[-1]:
                    return
                base = chunk[-1]

    def read(
        self, entity: str, entity_ids: Sequence[str], features: Sequence[FeatureOf], now: datetime
    ) -> list[dict[str, OnlineValue]]:
        if not features:
            return [{} for _ in entity_ids]
        return self.read_all([Read(entity, entity_ids, features)], now)[0]

    def read_all(self, reads: Sequence[Read], now: datetime) -> list[list[dict[str, OnlineValue]]]:
        plans = [self._plans.plan(one.entity, one.features) for one in reads]
        frames = b"".join([plan.frames(one.entity_ids) for plan, one in zip(plans, reads, strict=True)])
        if not frames:
            return [[] for _ in reads]
        with self._server.wire() as wire:
            replies = iter(raise_first(wire.send(frames, sum(len(one.entity_ids) for one in reads))))
        now_us = to_micros(now)
        return [
            [plan.values(cast("list[bytes | None]", reply), now_us) for reply in islice(replies, len(one.entity_ids))]
            for plan, one in zip(plans, reads, strict=True)
        ]

    def close(self) -> None:
        self._server.close()

    def _push(self, view: FeatureView, rows: pa.Table, commit_seqs: Sequence[int]) -> PutCounts:
        """One try on one connection."""
        counts = PutCounts()
        position = self._keys.position(view)
        with self._server.wire() as wire:
            epoch = self._begin(wire)
            for chunk in encoded(view, rows, self._keys):
                counts += _put(wire, chunk)
            keys = (self._keys.store, position, f"{position}:above")
            for start in range(0, len(commit_seqs), LINES):
                marked = wire.run(script(_PACKAGE, "mark.lua"), keys, [epoch, *commit_seqs[start : start + LINES]])
                if marked != 1:
                    raise self._emptied()
        return counts

    def _begin(self, wire: Wire) -> bytes:
        """Load the script and return the epoch; a Redis that starts from nothing gets a new one."""
        store = self._keys.store
        *_, (found, epoch) = cast(
            "list[tuple[bytes | None, bytes | None]]",
            wire.pipeline(
                [
                    ("SCRIPT", "LOAD", script(_PACKAGE, "newest.lua").text),
                    ("HSETNX", store, "format", FORMAT),
                    ("HSETNX", store, "epoch", secrets.token_hex(8)),
                    ("HMGET", store, "format", "epoch"),
                ]
            ),
        )
        if found is None or epoch is None:
            raise self._emptied()
        if int(found) > FORMAT:
            raise FormatError(
                f"Redis at {self._server.address} holds format {int(found)}, and this version writes {FORMAT}; "
                "upgrade featurestore-dagster, or use another FEATURESTORE_NAMESPACE"
            )
        return epoch

    def _emptied(self) -> StoreUnavailableError:
        return StoreUnavailableError("Redis", self._server.address, "it was emptied during a push")


def _put(wire: Wire, chunk: Encoded) -> PutCounts:
    newest = script(_PACKAGE, "newest.lua")
    data = chunk.frames(newest.sha)
    replies = wire.send(data, chunk.rows)
    if any(isinstance(reply, NoScriptError) for reply in replies):  # SCRIPT FLUSH by someone, just now
        wire.load(newest)
        replies = wire.send(data, chunk.rows)
    written = sum(cast("list[int]", raise_first(replies)))
    return PutCounts(written, chunk.rows - written, long_values=chunk.long_values)
