"""JSON records → rows in the landed schema, or rejections: by the source's declaration, and strictly.

Nothing is coerced: "1" and true are not numbers, 1.0 is not a whole number; a whole number in a float column is taken
if the float holds it exactly. msgspec checks types and ranges record by record, so that a bad record cannot touch its
neighbours. What it lets pass is checked by column (`featurestore.landing.columns`); and names that stand twice in a
record, of which it would take the last, by counting quotes: without repeated or unknown names there are exactly as many
as the values need.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from operator import attrgetter
from typing import Annotated, Any, TypeVar, cast

import msgspec
import pyarrow as pa
import pyarrow.compute
from msgspec import UNSET, Meta, UnsetType

from featurestore.definitions.dtypes import ScalarType
from featurestore.definitions.source import Source
from featurestore.entity_id import entity_id
from featurestore.errors import TerminalError
from featurestore.landing.columns import LATEST, Door, Rejection, refused, without
from featurestore.landing.schema import TIMESTAMP, landed_schema
from ingest.reasons import RepeatedError, reason

pc: Any = pyarrow.compute  # the stubs do not know that kernels take scalars too

RECORD_BYTES = 1 << 20  # the largest record
LARGEST_EXACT = 2.0**53  # from here on a float does not hold every whole number

Rfc3339 = Annotated[datetime, Meta(tz=True)]
_INT64 = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
_TYPES: dict[ScalarType, Any] = {str: str, int: _INT64, float: float, bool: bool}
MICROS = {"s": 1_000_000, "ms": 1_000, "us": 1}  # of one tick of a numeric timestamp
_time_of = attrgetter("time")
_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Decoded:
    """The good rows of some records in their order, and what is wrong with the others (`row` counts the records)."""

    rows: pa.Table
    rejections: tuple[Rejection, ...]
    unknown_members: int  # dropped

    @property
    def future(self) -> int:
        return sum(one.future for one in self.rejections)


class JsonDecoder:
    """Decodes the records of one source."""

    def __init__(self, door: Door) -> None:
        self._door, self._source = door, door.source
        self._schema = landed_schema(door.source)
        self._names = {*door.source.times, *door.source.columns}
        self._parse = msgspec.json.Decoder(_record_type(door.source)).decode
        columns = list(door.source.columns.values())
        self._getters = [attrgetter(f"c{index}") for index in range(len(columns))]
        self._optional = [index for index, column in enumerate(columns) if column.nullable]
        if door.source.created_at:
            self._optional.append(len(columns))
            self._getters.append(attrgetter("created"))
        needed = [column for column in columns if not column.nullable]
        texts = sum(column.dtype is str for column in needed) + (door.source.timestamp_format == "rfc3339")
        self._fewest_quotes = 2 * (1 + len(needed) + texts)

    def decode(
        self,
        values: Sequence[bytes | None],
        sequences: Sequence[int],
        now: datetime,
        keys: Sequence[bytes | None] = (),
    ) -> Decoded:
        """Decode some records, each into a row or a rejection; `keys`, where given, are their Kafka keys."""
        records, rejections = self._parsed(values)
        good: Sequence[int] = range(len(values))
        if rejections:
            bad = {one.row for one in rejections}
            good = [place for place in good if place not in bad]
            values, sequences, keys = _pick(values, good), _pick(sequences, good), _pick(keys, good)
        columns = [list(map(getter, records)) for getter in self._getters]
        table = self._table(list(map(_time_of, records)), columns, sequences)
        texts = cast("list[bytes]", values)  # every one has a value by now
        unknown_members, repeated = self._check_names(columns, texts)
        found: dict[int, Rejection] = {}
        for one in (
            *repeated,
            *refused(table, self._door, now),
            *self._inexact(table, texts),
            *self._misplaced(table, keys),
        ):
            found.setdefault(one.row, one)
        rejections += [replace(one, row=good[one.row]) for one in found.values()]
        rejections.sort(key=lambda one: one.row)
        return Decoded(without(table, found), tuple(rejections), unknown_members)

    def _parsed(self, values: Sequence[bytes | None]) -> tuple[list[Any], list[Rejection]]:
        """The records that have the declared types, and what is wrong with the others."""
        records: list[Any] = []
        rejections: list[Rejection] = []
        # What has no value, or is too large, is not looked at: an empty text fails too.
        texts: Sequence[Any] = values
        if not all(values) or max(map(len, texts), default=0) > RECORD_BYTES:
            texts = [b"" if _unfit(value) else value for value in values]
        parsing = map(self._parse, texts)
        while len(records) + len(rejections) < len(values):
            try:
                records.extend(parsing)  # until one fails; what came before it is kept
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
                place = len(records) + len(rejections)
                rejections.append(Rejection(place, _unfit(values[place]) or reason(error)))
        return records, rejections

    def _table(self, times: list[Any], columns: list[list[Any]], sequences: Sequence[int]) -> pa.Table:
        arrays = [pa.array(sequences, pa.int64()), self._micros(times)]
        if self._source.created_at:
            arrays.append(self._micros([None if time is UNSET else time for time in columns[-1]]))
            columns = columns[:-1]
        for column, field in zip(columns, list(self._schema)[len(arrays) :], strict=True):
            values = [None if value is UNSET else value for value in column] if field.nullable else column
            arrays.append(pa.array(values, field.type))
        return pa.Table.from_arrays(arrays, schema=self._schema)

    def _micros(self, times: list[Any]) -> pa.Array:
        if self._source.timestamp_format == "rfc3339":
            micros = pa.array(times, pa.timestamp("us", "UTC"))
        else:
            tick = MICROS[self._source.timestamp_format]
            micros = pa.array([None if time is None else round(time * tick) for time in times], pa.int64())
        return micros.view(TIMESTAMP)

    def _check_names(self, columns: list[list[Any]], texts: list[bytes]) -> tuple[int, list[Rejection]]:
        """How many members are not declared, and which records have a name twice."""
        optional = 0
        for index in self._optional:
            present = [value for value in columns[index] if value is not UNSET]
            optional += 2 * len(present) + 2 * sum(isinstance(value, str | datetime) for value in present)
        if b"".join(texts).count(b'"') == len(texts) * self._fewest_quotes + optional:
            return 0, []
        unknown_members, repeated = 0, list[Rejection]()
        for row, text in enumerate(texts):
            values = [columns[index][row] for index in self._optional]
            present = [value for value in values if value is not UNSET]
            quotes = 2 * len(present) + 2 * sum(isinstance(value, str | datetime) for value in present)
            if text.count(b'"') != self._fewest_quotes + quotes:
                try:
                    unknown_members += len(unrepeated(text) - self._names)
                except (RepeatedError, UnicodeDecodeError, RecursionError) as error:
                    repeated.append(Rejection(row, reason(error)))
        return unknown_members, repeated

    def _inexact(self, table: pa.Table, texts: list[bytes]) -> Iterator[Rejection]:
        """Whole numbers that a float column would change."""
        for column in self._source.columns.values():
            if column.dtype is float:
                values: Any = table[column.name]
                ends = pc.min_max(values).as_py()
                if ends["min"] is None or -LARGEST_EXACT < ends["min"] <= ends["max"] < LARGEST_EXACT:
                    continue
                for row in pc.indices_nonzero(pc.greater_equal(pc.abs(values), LARGEST_EXACT)).to_pylist():
                    number = bytes(_members(texts[row])[column.name])
                    if number.lstrip(b"-").isdigit() and int(number) != int(values[row].as_py()):
                        yield Rejection(row, f"{column.name}: a float does not hold this whole number exactly")

    def _misplaced(self, table: pa.Table, keys: Sequence[bytes | None]) -> Iterator[Rejection]:
        """Records whose Kafka key is not their entity's: their order would not be kept."""
        columns = self._door.message_key
        if not keys or not columns:
            return
        given = pa.array(keys, pa.binary())
        if len(columns) == 1:
            own = pc.cast(table[columns[0]], pa.string())
        else:
            rows = zip(*(table[column].to_pylist() for column in columns), strict=True)
            own = pa.array([_entity_text(row) for row in rows], pa.string())
        same = pc.fill_null(pc.equal(given, pc.cast(own, pa.binary())), False)
        misplaced = pc.and_(pc.is_valid(given), pc.invert(same))
        if pc.any(misplaced).as_py():
            for row in pc.indices_nonzero(misplaced).to_pylist():
                yield Rejection(row, f"the Kafka key is not the text of {', '.join(columns)}")


def _unfit(value: bytes | None) -> str:
    """Why a value is not parsed at all, if it is not."""
    if not value:
        return "no value"
    return f"larger than {RECORD_BYTES} bytes" if len(value) > RECORD_BYTES else ""


def unrepeated(text: bytes) -> set[str]:
    """The names of a valid record's members, all of them different."""
    text.decode()  # msgspec does not look into texts that it skips
    members = _members(text)
    if text.count(b'"') - b"".join(members.values()).count(b'"') != 2 * len(members):
        names: list[str] = []
        # Called for every object, the record itself last.
        json.loads(text, object_pairs_hook=lambda pairs: names.__setitem__(slice(None), [name for name, _ in pairs]))
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise RepeatedError(twice)
    return set(members)


def _record_type(source: Source) -> type[msgspec.Struct]:
    """A struct with `time` and a field per column; c0, c1, … because a column may be called `class`."""
    fields: list[Any] = [("time", _time_type(source))]
    optional: list[Any] = [("created", _time_type(source) | None | UnsetType, UNSET)] if source.created_at else []
    for index, column in enumerate(source.columns.values()):
        kind = _TYPES[column.dtype]
        if column.nullable:
            optional.append((f"c{index}", kind | None | UnsetType, UNSET))
        else:
            fields.append((f"c{index}", kind))
    names = {"time": source.timestamp, "created": source.created_at} | {
        f"c{index}": name for index, name in enumerate(source.columns)
    }
    return msgspec.defstruct(
        "Record",
        fields + optional,
        rename=names,
        gc=False,
        forbid_unknown_fields=source.unknown_fields == "reject",
    )


def _time_type(source: Source) -> Any:
    if source.timestamp_format == "rfc3339":
        return Rfc3339
    last = int(LATEST.timestamp()) * 1_000_000 // MICROS[source.timestamp_format] - 1
    kind = float if source.timestamp_format == "s" else int  # seconds often have a fraction
    return Annotated[kind, Meta(ge=0, le=last)]


def _entity_text(values: tuple[object, ...]) -> str | None:
    try:
        return entity_id(values)
    except TerminalError:
        return None


def _pick(items: Sequence[Item], places: Sequence[int]) -> Sequence[Item]:
    return [items[place] for place in places] if items else items
