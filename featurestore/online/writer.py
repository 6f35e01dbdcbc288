"""Rows of a view as fields of hashes, and as commands in the protocol's own bytes; made by Arrow, column by column.

A frame is one EVALSHA of newest.lua: the entity's key, the order field, the features. Building it this way takes a
fraction of what a client library takes for a plain HSET, which has a Python object for each word.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from featurestore.definitions.view import FeatureView
from featurestore.online.codec import COMPACT_BYTES, encode_column, encode_orders, encode_stamps
from featurestore.online.keys import Keys, order_field, value_field
from featurestore.online.octets import Column, as_bytes, as_list, joined, lengths, longer_than
from featurestore.order import ORDER_COLUMNS

CHUNK_ROWS = 1_000  # sent at once; the replies (4 bytes each) must fit the sockets' buffers


@dataclass(frozen=True, slots=True)
class Encoded:
    """What is to be stored of some rows: per row a key, and per field its bytes. The order field is the first."""

    rows: int
    keys: Column
    fields: tuple[tuple[bytes, Column], ...]

    @property
    def long_values(self) -> int:
        """How many fields are too long for a compact hash."""
        return sum(longer_than(column, COMPACT_BYTES) for _, column in self.fields)

    def frames(self, sha: bytes) -> bytes | memoryview:
        """The calls of the script `sha`, one per row, back to back."""
        words = 4 + 2 * len(self.fields)  # EVALSHA, sha, 1, key; then fields and bytes
        parts: list[bytes | Column] = [
            b"*%d\r\n$7\r\nEVALSHA\r\n$40\r\n%s\r\n$1\r\n1\r\n" % (words, sha),
            *_bulk(self.keys),
        ]
        for name, column in self.fields:
            parts += [b"$%d\r\n%s\r\n" % (len(name), name), *_bulk(column)]
        return as_bytes(joined(parts, self.rows))


def newest_rows(rows: pa.Table) -> pa.Table:
    """One row per entity, the newest by the total order."""
    entities = rows["entity_id"].combine_chunks().dictionary_encode()
    if len(entities.dictionary) == rows.num_rows:
        return rows
    codes = entities.indices.to_numpy()
    order = np.lexsort([*(rows[name].cast(pa.int64()).to_numpy() for name in reversed(ORDER_COLUMNS)), codes])
    is_last = np.append(codes[order][1:] != codes[order][:-1], True)
    return rows.take(np.sort(order[is_last]))


def encoded(view: FeatureView, rows: pa.Table, keys: Keys) -> Iterator[Encoded]:
    """The online row features of `rows`, at most CHUNK_ROWS at a time; nothing if the view has none."""
    for start in range(0, rows.num_rows if view.online_row_features else 0, CHUNK_ROWS):
        yield _encoded(view, rows.slice(start, CHUNK_ROWS), keys)


def fields_by_key(view: FeatureView, rows: pa.Table, keys: Keys) -> Mapping[bytes, Mapping[bytes, bytes]]:
    """What is to be stored of some rows, row by row; for a few."""
    found: dict[bytes, Mapping[bytes, bytes]] = {}
    for chunk in encoded(view, newest_rows(rows), keys):
        names = [name for name, _ in chunk.fields]
        for key, *values in zip(as_list(chunk.keys), *(as_list(column) for _, column in chunk.fields), strict=True):
            found[key] = dict(zip(names, values, strict=True))
    return found


def _encoded(view: FeatureView, rows: pa.Table, keys: Keys) -> Encoded:
    ids = rows["entity_id"].cast(pa.string()).combine_chunks().cast(pa.binary())
    orders = encode_orders(rows)
    stamps = encode_stamps(orders)
    values = (
        (value_field(one.name, view.version), encode_column(rows[one.name], one.dtype, stamps))
        for one in view.online_row_features
    )
    return Encoded(
        rows=rows.num_rows,
        keys=joined([keys.entity_prefix(view.entity.name), ids, b"}"], rows.num_rows),
        fields=((order_field(view.name, view.version), orders), *values),
    )


def _bulk(column: Column) -> tuple[bytes | Column, ...]:
    """Bulk strings of the protocol: the length, then the bytes."""
    if isinstance(column, np.ndarray):
        return b"$%d\r\n" % column.shape[1], column, b"\r\n"
    return b"$", lengths(column), b"\r\n", column, b"\r\n"
