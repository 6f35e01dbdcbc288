"""Blocks of a CSV file in which every row is plainly good: read column by column, many times as fast as row by row."""

import re
from datetime import datetime
from io import BytesIO
from typing import Any

import pyarrow as pa
import pyarrow.compute
import pyarrow.csv

from featurestore.definitions.dtypes import ScalarType
from featurestore.landing.columns import Door, refused
from featurestore.landing.schema import TIMESTAMP, landed_schema, sequences
from ingest.grpc.conversions import converter

pc: Any = pyarrow.compute  # the stubs do not know that kernels take scalars too

# What is certainly such a value; other spellings may be one too, and take the slow way.
_PLAIN: dict[ScalarType, str] = {
    int: r"^-?(0|[1-9][0-9]{0,17})$",
    float: r"^-?(0|[1-9][0-9]{0,14})(\.[0-9]{1,17})?$",
    bool: r"^([Tt]rue|TRUE|[Ff]alse|FALSE)$",
}
_PLAIN_TIME = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?(Z|[+-][0-9]{2}:[0-9]{2})$"
_ARROW: dict[ScalarType, pa.DataType] = {int: pa.int64(), float: pa.float64(), bool: pa.bool_()}
# Quotes only around whole cells, which stay on their line.
_QUOTED = re.compile(rb'(?:(?:"(?:[^"\n]|"")*+"|[^",\n]*+)[,\n])*+')


class PlainCsv:
    """Reads blocks of whole lines of one file. What it reads is what the slow way would read; a test compares them."""

    def __init__(self, header: list[str], door: Door) -> None:
        source = door.source
        self._door, self._schema, self._header = door, landed_schema(source), header
        self._names = [*source.times, *source.columns]  # in the order of the landed schema
        self._undeclared = [name for name in header if name not in self._names]
        numeric = float if source.timestamp_format == "s" else int
        self._kinds: dict[str, ScalarType] = {column.name: column.dtype for column in source.columns.values()}
        if source.timestamp_format != "rfc3339":
            self._kinds |= dict.fromkeys(source.times, numeric)

    def read(self, block: bytes, first_row: int, now: datetime) -> tuple[pa.Table, int] | None:
        """The rows of a block, and how many of their cells are not declared; None if a row takes a closer look."""
        texts = self._texts(block)
        if texts is None:
            return None
        arrays: list[Any] = [sequences(first_row, first_row + texts.num_rows)]
        for name, field in zip(self._names, list(self._schema)[1:], strict=True):
            column = self._column(name, texts) if name in self._header else pa.nulls(texts.num_rows, field.type)
            if column is None or (column.null_count and not field.nullable):
                return None
            arrays.append(column)
        table = pa.Table.from_arrays(arrays, schema=self._schema)
        if refused(table, self._door, now):
            return None
        return table, sum(pc.sum(pc.not_equal(texts[name], "")).as_py() for name in self._undeclared)

    def _texts(self, block: bytes) -> pa.Table | None:
        """The cells as they are; None where a line may not be a row."""
        strange = b"\0" in block or block.count(b"\r") != block.count(b"\r\n")
        if strange or (b'"' in block and not _QUOTED.fullmatch(block.replace(b"\r\n", b"\n").rstrip(b"\n") + b"\n")):
            return None
        try:
            texts = pyarrow.csv.read_csv(
                BytesIO(block),
                pyarrow.csv.ReadOptions(use_threads=False, block_size=len(block) + 1, column_names=self._header),
                pyarrow.csv.ParseOptions(ignore_empty_lines=True),
                pyarrow.csv.ConvertOptions(
                    column_types=dict.fromkeys(self._header, pa.string()), strings_can_be_null=False
                ),
            )
        except pa.ArrowInvalid:
            return None
        lines = block.count(b"\n") + (not block.endswith(b"\n"))
        return texts if texts.num_rows == lines else None

    def _column(self, name: str, texts: pa.Table) -> pa.Array | None:
        """A column of the landed schema, null where a cell is empty; None where a cell is not plainly good."""
        cells = texts[name].combine_chunks()
        if pc.any(pc.equal(cells, "")).as_py():
            cells = pc.if_else(pc.equal(cells, ""), pa.scalar(None, pa.string()), cells)
        kind = self._kinds.get(name)
        if kind is not str:
            cells = self._parsed(cells, kind)
        if cells is None or kind is None:
            return cells
        converted, bad = converter(self._door.source, name, cells.type)(cells)
        return None if bad else converted

    def _parsed(self, cells: pa.Array, kind: ScalarType | None) -> pa.Array | None:
        """Texts as what they say; without a kind, as RFC 3339 times."""
        if not pc.all(pc.match_substring_regex(cells, _PLAIN[kind] if kind else _PLAIN_TIME)).as_py():
            return None
        if kind:
            return pc.cast(pc.utf8_lower(cells) if kind is bool else cells, _ARROW[kind])
        try:
            return pc.cast(cells, pa.timestamp("us", "UTC")).cast(pa.int64()).view(TIMESTAMP)
        except pa.ArrowInvalid:  # no such day
            return None
