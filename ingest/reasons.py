"""What the JSON decoder says → what people read: the column, and what is wrong with it."""

import re

from featurestore.landing.columns import short

_WORDS = {
    "int": "a whole number",
    "float": "a number",
    "str": "text",
    "bool": "true or false",
    "datetime": "a time",
    "object": "an object",
    "array": "a list",
}
_NAME = re.compile(r"Object (missing required|contains unknown) field `(.*)`", re.DOTALL)
_KINDS = re.compile(r"Expected `([^`]+)`, got `([^`]+)`")
_PHRASES = (
    ("timezone", "the time has no zone"),
    ("RFC3339", "not an RFC 3339 time"),
    ("out of range", "out of range"),
    ("Expected `", "out of range"),
    ("truncated", "the JSON is cut, or a text holds half a surrogate pair"),
)


class RepeatedError(Exception):
    """A name stands twice in a record."""


def reason(error: Exception) -> str:
    """Why a record was refused, bounded."""
    if isinstance(error, RepeatedError):
        return short(f"{error}: stands twice in the record")
    if isinstance(error, UnicodeDecodeError):
        return "not valid UTF-8"
    if isinstance(error, RecursionError):
        return "nested too deeply"
    return short(_read(str(error)))


def _read(text: str) -> str:
    if name := _NAME.fullmatch(text):
        return f"{name[2]}: {'missing' if name[1].startswith('missing') else 'not declared'}"
    what, _, path = text.partition(" - at `")
    where = f"{path.removeprefix('$.').removesuffix('`')}: " if path else ""
    if kinds := _KINDS.fullmatch(what):
        wanted = " or ".join(_WORDS.get(kind, kind) for kind in kinds[1].split(" | "))
        return f"{where}missing" if kinds[2] == "null" else f"{where}{_WORDS.get(kinds[2], kinds[2])}, not {wanted}"
    return next((f"{where}{words}" for part, words in _PHRASES if part in what), what)
