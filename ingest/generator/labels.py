"""The file of labels, for training: `labels.parquet`, always whole."""

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from ingest.generator.profiles import Label

_KEPT = 10_000
_SCHEMA = pa.schema(
    [
        ("user_id", pa.int64()),
        ("event_timestamp", pa.timestamp("us", "UTC")),
        ("amount", pa.float64()),
        ("defaulted", pa.bool_()),
    ]
)


class LabelsFile:
    """The newest labels; survives restarts."""

    def __init__(self, data_dir: Path) -> None:
        self.path = data_dir / "generator" / "labels.parquet"

    def exists(self) -> bool:
        return self.path.exists()

    def add(self, labels: Sequence[Label]) -> None:
        """Append to the file, and replace it as a whole."""
        names = [field.name for field in fields(Label)]
        table = pa.table({name: [getattr(label, name) for label in labels] for name in names}, schema=_SCHEMA)
        if self.exists():
            table = pa.concat_tables([pq.read_table(self.path, schema=_SCHEMA), table])
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        temporary = self.path.with_suffix(".tmp")
        pq.write_table(table.slice(max(0, table.num_rows - _KEPT)), temporary)
        temporary.replace(self.path)
