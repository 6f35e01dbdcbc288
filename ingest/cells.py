"""Cells of text (CSV) → JSON values, by what the column holds."""

import re

import msgspec

_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")


def cell_json(cell: str, kind: type | None) -> bytes:
    """A cell as a JSON value; what does not look like its kind stays text, and is refused by the decoder.

    Raises:
        UnicodeEncodeError: it is not valid UTF-8.
    """
    if kind is bool and cell.lower() in {"true", "false"}:
        return cell.lower().encode()
    if kind in {int, float} and _NUMBER.fullmatch(cell):
        return cell.encode()
    return msgspec.json.encode(cell)
