"""The total order of the rows of one entity and view version; written once, for Python, SQL and Redis.

Two rows compare by (event_timestamp, created_at, sequence, tie). `tie` is the lowest 52 bits of hash64 of the batch id
(Lua numbers are exact to 2^53 only), so that rows of different batches never compare equal and every engine breaks
ties the same way. The version of a view is not part of the order: a version is chosen, never ordered.
"""

import struct
from dataclasses import dataclass

from featurestore.entity_id import hash64

# Columns at the head of every table of feature rows, and of every table of the log.
HEAD = ("entity_id", "event_timestamp", "created_at", "sequence", "tie")
ORDER_COLUMNS = HEAD[1:]

# For `ORDER BY … DESC LIMIT 1`, ASOF joins and arg_max: one comparable value per row.
ORDER_SQL = f"row({', '.join(ORDER_COLUMNS)})"

# The bytes in front of an entity's values in Redis: four float64, big-endian; every number is exact below 2^53.
# online/newest.lua unpacks them with the same format.
ORDER_FORMAT = ">dddd"
ORDER_BYTES = struct.calcsize(ORDER_FORMAT)

_LARGEST_EXACT = 2**53


def tie(batch_id: str) -> int:
    """The last resort of the order: 52 bits of the batch id's hash."""
    return hash64(batch_id) & (2**52 - 1)


@dataclass(frozen=True, slots=True, order=True)
class Order:
    """The place of a row; compares as the log and Redis do. Times are microseconds since 1970, UTC."""

    event_timestamp: int
    created_at: int
    sequence: int
    tie: int

    def to_bytes(self) -> bytes:
        """The order field of Redis (32 bytes)."""
        if max(abs(self.event_timestamp), abs(self.created_at), abs(self.sequence), self.tie) > _LARGEST_EXACT:
            raise ValueError(f"{self} cannot be written exactly as float64")
        return struct.pack(ORDER_FORMAT, self.event_timestamp, self.created_at, self.sequence, self.tie)

    @classmethod
    def from_bytes(cls, data: bytes) -> "Order":
        return cls(*(int(part) for part in struct.unpack(ORDER_FORMAT, data)))
