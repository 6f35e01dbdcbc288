"""How a batch becomes visible: whole, durable, and at most one file per start of a chain.

The exclusive name holds the start only. Writers that compete for a chain (a zombie after a rebalance, two daemons of
one topic) read the same tail and try to create the same name; one wins, the others are fenced. With the end in the
name, or with rename, each of them would land the same records.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

import pyarrow as pa

from featurestore.landing import dead_letters, parquet
from featurestore.landing.batch import MICROSECOND, Batch, time_range
from featurestore.landing.dead_letters import DeadLetter
from featurestore.landing.disk import create_exclusively, fsync_directory, make_directories, writing


@dataclass(frozen=True, slots=True)
class Published:
    """The batch is landed: durable, and visible whole."""

    batch: Batch


@dataclass(frozen=True, slots=True)
class Fenced:
    """Another writer landed from this start; drop the buffer and go on at the winner's end."""

    winner: Batch


def next_created_at(now: datetime, previous: datetime | None) -> datetime:
    """A chain's times only grow, whatever the clock does: else an older correction could win."""
    return now if previous is None else max(now, previous + MICROSECOND)


def file_name(start: int) -> str:
    return f"{start:020d}.parquet"


def publish(
    root: Path,
    chain: str,
    table: pa.Table,
    *,
    source: str,
    start: int,
    end: int,
    schema_version: str,
    previous: Batch | None,
    now: Callable[[], datetime],
    dead: Sequence[DeadLetter] = (),
    absent_rows: int = 0,
) -> Published | Fenced:
    """Land `table` and its dead letters as the batch [start, end) of `chain`; durable when it returns.

    Raises:
        NoSpaceError: the disk is full; nothing became visible.
    """
    directory = root / chain
    make_directories(directory, root)
    dead_name = _write_dead_letters(directory, start, dead) if dead else ""
    first, last = time_range(table)
    final = directory / file_name(start)
    batch = Batch(
        batch_id=f"{chain}/{final.name}",
        source=source,
        start=start,
        end=end,
        rows=table.num_rows,
        dead_rows=len(dead),
        absent_rows=absent_rows,
        created_at=next_created_at(now(), previous.created_at if previous else None),
        min_event_timestamp=first,
        max_event_timestamp=last,
        schema_version=schema_version,
        digest="",
        bytes=0,
        dead_letters=dead_name,
    )
    with writing(directory, f"{start:020d}") as temporary:
        digest = parquet.write(temporary, table, batch.to_metadata())
        size_bytes = temporary.stat().st_size
        if create_exclusively(temporary, final):
            return Published(replace(batch, digest=digest, bytes=size_bytes))
    winner = read_batch(root, batch.batch_id)
    if winner.digest == digest:  # our own write, whose answer was lost
        return Published(winner)
    if dead_name:
        (directory / dead_name).unlink(missing_ok=True)
    return Fenced(winner)


def _write_dead_letters(directory: Path, start: int, dead: Sequence[DeadLetter]) -> str:
    """Write them under a name of their own, durable; they count once the batch names them."""
    with writing(directory, f"{start:020d}") as temporary:
        dead_letters.write(temporary, dead)
        name = f"{start:020d}.{temporary.suffixes[-2].removeprefix('.')}{dead_letters.SUFFIX}"
        temporary.rename(directory / name)
    fsync_directory(directory)
    return name


def read_batch(root: Path, batch_id: str) -> Batch:
    """The batch of a landed file, from its footer."""
    path = root / batch_id
    return Batch.from_metadata(batch_id, parquet.read_metadata(path), size_bytes=path.stat().st_size)
