"""What was made of erased rows: taken out of the tables, hidden in the lake's files, kept out of what is still sent."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute

from featurestore.database.checks import LINE
from featurestore.database.jobs import AppendJob, EraseJob, ViewTable
from featurestore.definitions.names import check_name
from featurestore.entity_id import entity_id_sql

pc: Any = pyarrow.compute  # the stubs do not know that kernels take scalars too

_SQL = Path(__file__).parent / "sql"
_OF_A_VIEW = (_SQL / "erase_of_view.sql").read_text()
_INCOMING = "erased_incoming"

_OF_ENTITY = """
    INSERT INTO erasing SELECT line.batch_id, logged.sequence FROM {log} AS logged
    JOIN applied AS line ON line.target = $target AND line.commit_seq = logged.commit_seq
    WHERE logged.entity_id = $entity_id AND logged.created_at <= $erased_at
"""
# What is quarantined has no entity but in its JSON, and no landing time but that of its batch in the ledger; once an
# erasure is decided, what had landed by then is left out before it is applied, but for runs that had read it already.
_OF_QUARANTINED = """
    INSERT INTO erasing SELECT batch_id, sequence FROM {held}
    WHERE target = $target AND entity_id = $entity_id AND batch_id IN (
        SELECT batch_id FROM applied WHERE target = $target AND applied_at <= $erased_at + INTERVAL 6 HOUR
    )
"""
_NOTE = """
    INSERT INTO erasures SELECT $erased_at, $entity, count(*) FROM fresh
    HAVING count(*) > 0 OR NOT EXISTS (FROM erasures WHERE erased_at = $erased_at AND entity = $entity)
"""


class ErasedRows:
    """Which landed rows were erased; belongs to the writer's connection and thread."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._connection = connection
        self._rows: Mapping[str, pa.Array] = {}
        self._read()

    def erase(self, job: EraseJob, tables: Sequence[ViewTable]) -> None:
        """Inside the caller's transaction: take away what the views' logs have of the rows. Twice changes nothing."""
        run = self._connection.execute
        at = {"erased_at": job.erased_at.replace(tzinfo=None)}
        run("CREATE OR REPLACE TEMP TABLE erasing (batch_id VARCHAR, sequence BIGINT)")
        self._insert(job.rows)
        for table in tables:
            wanted = {"target": table.target, "entity_id": job.entity_id, **at}
            if table.entity == job.entity:
                run(_OF_ENTITY.format(log=table.relation), wanted)
            run(_OF_QUARANTINED.format(held=quarantined_with_key(job.key)), wanted)
        run("CREATE OR REPLACE TEMP TABLE fresh AS FROM erasing EXCEPT SELECT batch_id, sequence FROM erased_rows")
        for table in tables:
            run(_OF_A_VIEW.format(log=table.relation, hot=table.hot_relation, target=table.target))
        run(_NOTE, {"entity": job.entity, **at})
        run("INSERT INTO erased_rows FROM fresh")
        for name in ("erasing", "fresh", "gone", "held_gone"):
            run(f"DROP TABLE IF EXISTS temp.{name}")

    def committed(self) -> None:
        """Know from now on what was erased."""
        self._read()

    def without(self, job: AppendJob) -> AppendJob:
        """The job without rows that were erased after somebody had read them; its ledger lines say so."""
        lines = list(job.lines)
        tables = {"logged": job.rows, "quarantined": job.quarantined}
        for number, line in enumerate(lines):
            if (gone := self._rows.get(line.batch_id)) is None:
                continue
            for name, table in tables.items():
                mask = pc.and_(pc.equal(table[LINE], number), pc.is_in(table["sequence"], gone))
                count = pc.sum(mask, min_count=0).as_py()
                tables[name] = table.filter(pc.invert(mask))
                changed: Any = {name: getattr(lines[number], name) - count, "erased": lines[number].erased + count}
                lines[number] = replace(lines[number], **changed)
        return AppendJob(job.job_id, job.target, tuple(lines), tables["logged"], tables["quarantined"])

    def _insert(self, rows: Mapping[str, Sequence[int]]) -> None:
        pairs = [(batch_id, sequence) for batch_id, sequences in rows.items() for sequence in sequences]
        columns = {"batch_id": [one for one, _ in pairs], "sequence": [one for _, one in pairs]}
        schema = pa.schema([("batch_id", pa.string()), ("sequence", pa.int64())])
        self._connection.register(_INCOMING, pa.table(columns, schema=schema))
        self._connection.execute(f"INSERT INTO erasing FROM {_INCOMING}")
        self._connection.unregister(_INCOMING)

    def _read(self) -> None:
        sql = "SELECT batch_id, list(sequence) FROM erased_rows GROUP BY batch_id"
        found = self._connection.execute(sql).fetchall()
        self._rows = {batch_id: pa.array(sequences, pa.int64()) for batch_id, sequences in found}


def quarantined_with_key(key: Sequence[str]) -> str:
    """The quarantined rows, each with the `entity_id` that its columns `key` make; NULL where it lacks one."""
    for name in key:
        check_name(name, "entity key")
    columns = ", ".join(f"""json_extract_string("row", '$."{name}"') AS "{name}\"""" for name in key)
    rows = f"SELECT batch_id, target, sequence, {columns} FROM quarantined_rows"
    return f"(SELECT batch_id, target, sequence, {entity_id_sql(key)} AS entity_id FROM ({rows}))"
