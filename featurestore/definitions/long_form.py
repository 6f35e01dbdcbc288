"""The long form: rows on the wire as one feature's value a line; each line is a cell of a row of the source."""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from featurestore.definitions.dtypes import ScalarType
from featurestore.definitions.project import Project
from featurestore.definitions.source import Source, SourceColumn
from featurestore.entity_id import key_texts
from featurestore.errors import TerminalError

LONG_FORM = ("entity_id", "feature_name", "value", "event_timestamp")

_WHOLE = re.compile(r"0|-?[1-9][0-9]*")


def is_long_form(names: Collection[str]) -> bool:
    """Whether these are its columns; no source can declare `entity_id` or `feature_name`, so wide rows never are."""
    return set(LONG_FORM) <= set(names)


@dataclass(frozen=True, slots=True)
class Cell:
    """A place in a source's rows: a column, in the row that these columns identify."""

    column: str
    dtype: ScalarType
    key: tuple[SourceColumn, ...]


@dataclass(frozen=True, slots=True)
class LongForm:
    """Which cell of a source's rows a line fills. A feature that is a plain column has one, a computed one has none."""

    source: str
    cells: Mapping[str, Cell] = field(default_factory=dict[str, Cell])  # by feature
    computed: Mapping[str, str] = field(default_factory=dict[str, str])  # the SQL of the other features

    @classmethod
    def of(cls, source: Source, project: Project) -> "LongForm":
        cells, computed = dict[str, Cell](), dict[str, str]()
        for view in project.views_of(source):
            key = tuple(source.columns[name] for name in view.entity.key_columns)
            for feature in view.row_features:
                if column := source.columns.get(feature.expression):
                    cells[feature.name] = Cell(column.name, column.dtype, key)
                else:
                    computed[feature.name] = feature.expression
        return cls(source.name, cells, computed)

    def cell(self, feature_name: str) -> Cell:
        """The cell that a feature's value fills.

        Raises:
            TerminalError: it fills none; the message says what can be sent.
        """
        if feature_name in self.cells:
            return self.cells[feature_name]
        if feature_name in self.computed:
            raise TerminalError(
                f"feature_name: {feature_name!r} is computed ({self.computed[feature_name]}); send whole rows"
            )
        there = ", ".join(self.cells) or "no feature that is a plain column"
        raise TerminalError(f"feature_name: {feature_name!r} is no feature of source {self.source!r}; it has {there}")


def key_of(cell: Cell, entity_id: str) -> dict[str, str | int]:
    """The key columns of the row of that entity.

    Raises:
        TerminalError: the text is not the canonical one of a key.
    """
    texts = key_texts(entity_id, len(cell.key))
    return {column.name: _value(column, text) for column, text in zip(cell.key, texts, strict=True)}


def _value(column: SourceColumn, text: str) -> str | int:
    if column.dtype is str:
        return text
    if not _WHOLE.fullmatch(text):
        raise TerminalError(f"entity_id: {text!r} is not the text of a whole number, which {column.name} is")
    return int(text)
