"""The canonical text of an entity's key, and the portable hash that buckets and ties use."""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass

from featurestore.errors import TerminalError

KeyValue = str | int | float | bool

_SEPARATOR, _ESCAPE = "|", "\\"
_TOKEN = re.compile(r"\\[\\|]|[^\\]")


def entity_id(values: Sequence[object]) -> str:
    """The text of a key: one value as it is, several joined without ambiguity: (1, 11) and (11, 1) differ.

    Raises:
        TerminalError: a value is missing, or neither text nor a whole number (42.0 and true are refused, so that one
            entity has one text).
    """
    texts = [_text(value) for value in values]
    if len(texts) == 1:
        return texts[0]
    return _SEPARATOR.join(
        text.replace(_ESCAPE, _ESCAPE * 2).replace(_SEPARATOR, _ESCAPE + _SEPARATOR) for text in texts
    )


def key_texts(text: str, count: int) -> list[str]:
    """The texts of a key's `count` columns, of which `text` is the entity_id.

    Raises:
        TerminalError: it is not the entity_id of such a key.
    """
    if count == 1:
        return [text]
    parts = [""]
    for token in _TOKEN.findall(text):
        if token == _SEPARATOR:
            parts.append("")
        else:
            parts[-1] += token.removeprefix(_ESCAPE) if len(token) == 2 else token
    if len(parts) != count or "" in parts or entity_id(parts) != text:
        raise TerminalError(f"{text!r} is not the text of a key of {count} columns, joined by {_SEPARATOR}")
    return parts


def _text(value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise TerminalError(f"{value!r} cannot identify an entity; a key is text or a whole number")
    if value == "":
        raise TerminalError("an empty text cannot identify an entity")
    return str(value)


def entity_id_sql(columns: Sequence[str]) -> str:
    """The same text as a SQL expression over key columns (BIGINT or VARCHAR)."""
    if len(columns) == 1:
        return f'CAST("{columns[0]}" AS VARCHAR)'
    return f" || '{_SEPARATOR}' || ".join(_escaped_sql(column) for column in columns)


def _escaped_sql(column: str) -> str:
    text = f'CAST("{column}" AS VARCHAR)'
    for plain in (_ESCAPE, _SEPARATOR):
        text = f"replace({text}, '{plain}', '{_ESCAPE}{plain}')"
    return text


def hash64(text: str) -> int:
    """The last 8 bytes of MD5, little-endian: `md5_number_lower` in DuckDB, and easy in every language."""
    return int.from_bytes(hashlib.md5(text.encode(), usedforsecurity=False).digest()[8:], "little")


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of all entities, by the hash of their ids: those whose hash leaves `number` when divided by `of`."""

    number: int
    of: int

    def holds(self, entity_id: str) -> bool:
        return self.of == 1 or hash64(entity_id) % self.of == self.number

    def split(self, count: int) -> "list[Piece]":
        """The same entities in so many pieces."""
        return [Piece(self.number + self.of * part, self.of * count) for part in range(count)]

    @property
    def sql(self) -> str:
        """The same as a condition on the column `entity_id`."""
        return f"md5_number_lower(entity_id) % {self.of} = {self.number}" if self.of > 1 else "true"


WHOLE = Piece(0, 1)
