"""Whether an append job is what its target and its ledger lines say; pure."""

from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from featurestore.database.jobs import AppendJob
from featurestore.database.tables import ARROW_TYPES, QUARANTINE, Target
from featurestore.errors import JobRefusedError

LINE = "line"
_QUARANTINE_REQUIRED = frozenset({"sequence", "reason"})


def checked(job: AppendJob, target: Target) -> AppendJob:
    """The same job with its tables in the target's own types and column order, `line` last.

    Raises:
        JobRefusedError: a column is missing, unknown, of another type or NULL where it must not be; the code is not
            the registered one; or the counts of a ledger line do not agree with the rows.
    """
    for line in job.lines:
        if line.target != target.name:
            raise JobRefusedError(f"a ledger line names {line.target!r} in a job for {target.name!r}")
        if target.digest and line.code_digest != target.digest:
            raise JobRefusedError(other_code(target.name))
    rows = _conform(job.rows, target.columns, target.required, target.name)
    quarantined = _conform(job.quarantined, QUARANTINE, _QUARANTINE_REQUIRED, f"{target.name}, quarantined rows")
    _check_counts(job, rows, quarantined)
    return AppendJob(job.job_id, job.target, job.lines, rows, quarantined)


def other_code(target: str) -> str:
    """What to do when a version's code is not the one that was registered."""
    view, _, version = target.rpartition("@v")
    return (
        f"{target} was registered with other code; its rows would change their meaning within one version: "
        f"give {view} version={int(version) + 1}, or take the change back"
    )


def _conform(table: pa.Table, columns: Mapping[str, str], required: frozenset[str], where: str) -> pa.Table:
    names = table.column_names
    for name in names:
        if name not in columns and name != LINE:
            raise JobRefusedError(f"{where}: there is no column {name!r}; it has {', '.join(columns)}")
        if names.count(name) > 1:
            raise JobRefusedError(f"{where}: column {name!r} is there twice")
    wanted = {**columns, LINE: "BIGINT"}
    conformed: dict[str, pa.ChunkedArray] = {}
    for name, dtype in wanted.items():
        if name not in names:
            raise JobRefusedError(f"{where}: column {name!r} is missing")
        column = table[name]
        if column.null_count and (name in required or name == LINE):
            raise JobRefusedError(f"{where}: column {name!r} has {column.null_count} NULLs; it must have none")
        conformed[name] = _cast(column, dtype, f"{where}: column {name!r}")
    return pa.Table.from_pydict(conformed)


def _cast(column: pa.ChunkedArray, dtype: str, where: str) -> pa.ChunkedArray:
    wanted = ARROW_TYPES[dtype]
    if column.type == wanted:
        return column
    if not _same_kind(column.type, dtype):
        raise JobRefusedError(f"{where} is {column.type}, the table has {dtype}")
    try:
        return column.cast(wanted)
    except pa.ArrowInvalid as error:
        raise JobRefusedError(f"{where} is {column.type} with values that {dtype} does not hold") from error


def _same_kind(found: pa.DataType, dtype: str) -> bool:
    """Whether the types differ in width, unit or encoding only; a lossy value still fails the cast."""
    types = pa.types
    if types.is_null(found):
        return True
    if types.is_dictionary(found):
        found = found.value_type
    return {
        "VARCHAR": types.is_string(found) or types.is_large_string(found) or types.is_string_view(found),
        "BIGINT": types.is_integer(found),
        "DOUBLE": types.is_floating(found),
        "BOOLEAN": types.is_boolean(found),
        "TIMESTAMP": types.is_timestamp(found),
    }[dtype]


def _check_counts(job: AppendJob, rows: pa.Table, quarantined: pa.Table) -> None:
    logged, held = _per_line(rows, len(job.lines)), _per_line(quarantined, len(job.lines))
    for line, in_rows, in_quarantine in zip(job.lines, logged, held, strict=True):
        counts = (line.rows_in, line.logged, line.filtered, line.quarantined, line.erased)
        if min(counts) < 0 or line.rows_in != sum(counts[1:]):
            raise JobRefusedError(
                f"{line.target}, batch {line.batch_id}: rows in ({line.rows_in}) is not logged ({line.logged}) "
                f"+ filtered ({line.filtered}) + quarantined ({line.quarantined}) + erased ({line.erased})"
            )
        if (in_rows, in_quarantine) != (line.logged, line.quarantined):
            raise JobRefusedError(
                f"{line.target}, batch {line.batch_id}: the ledger line says {line.logged} logged and "
                f"{line.quarantined} quarantined, the job brings {in_rows} and {in_quarantine}"
            )


def _per_line(table: pa.Table, lines: int) -> list[int]:
    """How many rows each ledger line has."""
    counts: Any = pc.value_counts(table[LINE])
    counted: dict[int, int] = {one["values"]: one["counts"] for one in counts.to_pylist()}
    if counted and not 0 <= min(counted) <= max(counted) < lines:
        raise JobRefusedError(f"column 'line' does not stay within the {lines} ledger lines")
    return [counted.get(line, 0) for line in range(lines)]
