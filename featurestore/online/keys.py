"""Names in Redis.

[<namespace>:]fs:{<entity>:<entity_id>}    HASH per entity. The braces make the entity the hash tag of a cluster: keys
                                           of one entity lie together, and the namespace does not take part.
    <feature>@<version>                    a value (codec.py)
    !<view>@<version>                      the order of the row that the values of this view version come from
[<namespace>:]fs:{…}:w:<view>@<version>:<ring>
                                           HASH per entity and ring: a tile per slot (tiles.py)
[<namespace>:]fs:store                     HASH: format, epoch (a random text, new whenever Redis starts from nothing)
[<namespace>:]fs:pushed:<target>:<set>     text: the position, a commit_seq; <set> names the online features (and
                                           rings) it is for
[<namespace>:]fs:pushed:<target>:<set>:above   ZSET: listed commit_seqs above the position
[<namespace>:]fs:pushed:<target>:<set>:pieces  HASH: pieces of a rebuild that are done (fill.lua)
[<namespace>:]fs:pushed:<target>:log       text: the epoch of the database whose lines these are
[<namespace>:]fs:active                    HASH: view → "<version> <commit_seq> <epoch of the database>" (activate.lua)

On a cluster each master has `store` and `pushed` for itself: behind `fs:` stands `{<mark>}:`, a hash tag that lies on
it and names it together with its slots, so that after a failover or resharding nothing counts as pushed.
"""

import re
from collections.abc import Sequence

from featurestore.definitions.rings import Ring
from featurestore.definitions.view import FeatureView
from featurestore.entity_id import hash64

_GLOB, _ESCAPED = re.compile(r"([*?\[\]\\])"), r"\\\1"


def value_field(feature: str, version: int) -> bytes:
    return f"{feature}@{version}".encode()


def order_field(view: str, version: int) -> bytes:
    return f"!{view}@{version}".encode()  # no feature starts with "!"


def all_fields(view: FeatureView) -> list[bytes]:
    """Every field that a row of this view version may have; the order field is the first."""
    return fields_of(view.name, view.version, [feature.name for feature in view.row_features])


def fields_of(view: str, version: int, features: Sequence[str]) -> list[bytes]:
    return [order_field(view, version), *(value_field(name, version) for name in features)]


def entity_key(prefix: bytes, entity_id: str) -> bytes:
    return b"%s%s}" % (prefix, entity_id.encode())


def rings_suffix(view: str, version: int) -> bytes:
    """What stands behind the key of an entity in those of its rings; the ring's name stands behind it."""
    return f":w:{view}@{version}:".encode()


NO_BRACE = b"*[^}]"  # in a pattern, the rest of a ring's key: that of an entity may contain anything, and ends with one


def ring_suffix(view: str, version: int, ring: Ring) -> bytes:
    return rings_suffix(view, version) + ring.name.encode()


class Keys:
    """Key names inside a namespace."""

    def __init__(self, namespace: str = "") -> None:
        self._root = f"{namespace}:fs:" if namespace else "fs:"

    @property
    def everything(self) -> str:
        """A pattern that every key of the namespace matches, on whatever node."""
        return f"{_GLOB.sub(_ESCAPED, self._root)}*"

    def entity_prefix(self, entity: str) -> bytes:
        """What stands before the entity id; a closing brace stands behind it."""
        return f"{self._root}{{{entity}:".encode()

    def store(self, mark: str = "") -> str:
        """The key of format and epoch."""
        return f"{self._own(mark)}store"

    def active(self) -> str:
        """The key of the active versions."""
        return f"{self._root}active"

    def position(self, view: FeatureView, mark: str = "") -> str:
        """The key of the position; that of the list above it is the same with `:above`."""
        kept = [*(one.name for one in view.online_row_features), *(ring.name for ring in view.rings)]
        online = ",".join(sorted(kept))
        return f"{self.positions(view.name, view.version, mark)}{hash64(online):016x}"

    def log(self, view: FeatureView, mark: str = "") -> str:
        """The key of the epoch of the database that the lists are about."""
        return f"{self.positions(view.name, view.version, mark)}log"

    def positions(self, view: str, version: int, mark: str = "") -> str:
        """What the keys of a version's positions begin with, whatever its online features are or were."""
        return f"{self._own(mark)}pushed:{view}@v{version}:"

    def _own(self, mark: str) -> str:
        return f"{self._root}{{{mark}}}:" if mark else self._root
