"""A training set: the spine's rows with each feature as of the row's time, and the receipt.

Nothing of the engine is imported here. Data frame libraries keep every class they were ever given, with all that its
module refers to; with DuckDB among that, programs would end with complaints about what was not freed.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa

    from featurestore.training.receipt import Receipt


@dataclass(frozen=True, slots=True)
class TrainingSet:
    """An Arrow stream (hand it to pandas, polars or pyarrow) with its receipt."""

    table: "pa.Table"
    receipt: "Receipt"

    def __len__(self) -> int:
        return self.table.num_rows

    def __repr__(self) -> str:
        columns = ", ".join(self.table.column_names)
        return f"TrainingSet of {len(self)} rows: {columns} (sha256 {self.receipt.sha256[:8]}…)"

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        return self.table.__arrow_c_stream__(requested_schema)
