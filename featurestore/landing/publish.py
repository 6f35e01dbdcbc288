"""How a batch becomes visible: whole, durable, and at most one file per start of a chain.

The exclusive name holds the start only. Writers that compete for a chain (a zombie after a rebalance, two daemons of
one topic) read the same tail and try to create the same name; one wins, the others are fenced. With the end in the
name, or with rename, each of them would land the same records.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import uuid4

import pyarrow as pa

from featurestore.landing import dead_letters, parquet
from featurestore.landing.batch import MICROSECOND, Batch
from featurestore.landing.dead_letters import DeadLetter
from featurestore.landing.schema import time_range
from featurestore.landing.storage import Storage


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
    storage: Storage,
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
    origin: str = "",
) -> Published | Fenced:
    """Land `table` and its dead letters as the batch [start, end) of `chain`; durable when it returns.

    Raises:
        TransientError: the disk is full, or the storage does not answer; nothing became visible.
    """
    dead_name = f"{start:020d}.{uuid4().hex}{dead_letters.SUFFIX}" if dead else ""
    if dead:  # under a name of their own; they count once the batch names them
        dead_letters.write(storage, f"{chain}/{dead_name}", dead)
    first, last = time_range(table)
    batch = Batch(
        batch_id=f"{chain}/{file_name(start)}",
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
        origin=origin,
    )
    with storage.writing(batch.batch_id) as file:
        digest = parquet.write(file, table, batch.to_metadata())
        size_bytes = file.seek(0, os.SEEK_END)
        if storage.create(file, batch.batch_id):
            return Published(replace(batch, digest=digest, bytes=size_bytes))
    winner = read_batch(storage, batch.batch_id)
    if winner.digest == digest:  # our own write, whose answer was lost
        return Published(winner)
    if dead_name:
        storage.remove(f"{chain}/{dead_name}")
    return Fenced(winner)


def read_batch(storage: Storage, batch_id: str) -> Batch:
    """The batch of a landed file, from its footer.

    Raises:
        CorruptFileError, FormatError: it cannot be read.
        FileNotFoundError: there is no such file.
    """
    with storage.open(batch_id) as file:
        metadata = parquet.read_metadata(file, f"{storage.address}/{batch_id}")
        return Batch.from_metadata(batch_id, metadata, size_bytes=file.seek(0, os.SEEK_END))
