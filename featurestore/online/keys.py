"""Names in Redis.

[<namespace>:]fs:{<entity>:<entity_id>}    HASH per entity. The braces make the entity the hash tag of a cluster: keys
                                           of one entity lie together, and the namespace does not take part.
    <feature>@<version>                    a value (codec.py)
    !<view>@<version>                      the order of the row that the values of this view version come from
[<namespace>:]fs:store                     HASH: format, epoch (a random text, new whenever Redis starts from nothing)
[<namespace>:]fs:pushed:<target>:<set>     text: the position, a commit_seq; <set> names the online features it is for
[<namespace>:]fs:pushed:<target>:<set>:above   ZSET: listed commit_seqs above the position
"""

from featurestore.definitions.view import FeatureView
from featurestore.entity_id import hash64


def value_field(feature: str, version: int) -> bytes:
    return f"{feature}@{version}".encode()


def order_field(view: str, version: int) -> bytes:
    return f"!{view}@{version}".encode()  # no feature starts with "!"


class Keys:
    """Key names inside a namespace."""

    def __init__(self, namespace: str = "") -> None:
        self._root = f"{namespace}:fs:" if namespace else "fs:"
        self.store = f"{self._root}store"

    def entity_prefix(self, entity: str) -> bytes:
        """What stands before the entity id; a closing brace stands behind it."""
        return f"{self._root}{{{entity}:".encode()

    def position(self, view: FeatureView) -> str:
        """The key of the position; that of the list above it is the same with `:above`."""
        online = ",".join(sorted(feature.name for feature in view.online_features))
        return f"{self._root}pushed:{view.target}:{hash64(online):016x}"
