"""The files of a chain: which of them count, and where it begins."""

import re
from collections.abc import Iterable, Sequence

import msgspec

from featurestore.landing import rewritten
from featurestore.landing.storage import Storage

BATCH_FILE = re.compile(r"(\d{20})\.parquet")
_FLOOR_FILE = re.compile(r"(\d{20})\.floor")


class Floor(msgspec.Struct, frozen=True, kw_only=True):
    """Where a chain begins, and what was removed below: its newest `<offset>.floor` file."""

    offset: int = 0
    batches: int = 0
    rows: int = 0
    dead_rows: int = 0
    until: int = 0  # the landing time of the last batch that was removed; microseconds since 1970


def floor(names: Iterable[str]) -> int:
    """Where a chain begins: at the highest of its `<offset>.floor` files; what starts below it is no batch any more."""
    return max((int(match[1]) for match in map(_FLOOR_FILE.fullmatch, names) if match), default=0)


def read_floor(storage: Storage, chain: str) -> Floor:
    """Where a chain begins, and what was removed below."""
    offset = floor(storage.names(chain))
    try:
        with storage.open(f"{chain}/{offset:020d}.floor") as file:
            return msgspec.json.decode(file.read() or b"{}", type=Floor)
    except FileNotFoundError:
        return Floor(offset=offset)


def files_from(names: Sequence[str], expected: int) -> dict[int, str]:
    """The files of a chain from an offset on, by where they start; also one that starts earlier, if it may go on there:
    what landed since the last look may have been compacted with what was known."""
    compacted = rewritten.newest(names)
    files = {int(match[1]): match[0] for match in map(BATCH_FILE.fullmatch, names) if match} | compacted
    new = {start: files[start] for start in sorted(files) if start >= expected}
    earlier = [start for start in compacted if start < expected]
    if new and expected not in new and earlier:
        return {max(earlier): compacted[max(earlier)], **new}
    return new
