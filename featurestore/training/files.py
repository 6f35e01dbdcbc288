"""Training sets and their spines as files: Parquet or CSV, whole or not at all, the receipt beside them."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from featurestore.errors import TerminalError
from featurestore.training.receipt import Receipt
from featurestore.training.training_set import TrainingSet

_WRITERS: Mapping[str, Callable[[pa.Table, Any], None]] = {".parquet": pq.write_table, ".csv": pyarrow.csv.write_csv}


@dataclass(frozen=True, slots=True)
class TrainingSetFiles:
    """Where assets write their training sets, and models find them."""

    directory: Path

    def path(self, name: str, partition: str | None = None) -> Path:
        """`<name>.parquet`, or `<name>/<partition>.parquet`; the receipt lies beside it."""
        if partition is None:
            return self.directory / f"{name}.parquet"
        return self.directory / name / f"{quote(partition, safe=' ')}.parquet"


def read_table(path: Path) -> pa.Table:
    """Raises TerminalError when it is not there, or not what its name says."""
    try:
        if path.suffix == ".parquet":
            return pq.ParquetFile(path).read()  # read_table would make columns of directories called name=value
        if path.suffix == ".csv":
            return pyarrow.csv.read_csv(path)
    except FileNotFoundError as error:
        raise TerminalError(f"there is no file {path}") from error
    except (OSError, pa.ArrowException) as error:
        raise TerminalError(f"{path}: {error}") from error
    raise TerminalError(f"{path}: a spine is a .parquet or .csv file")


def check_writable(path: Path) -> None:
    """Before the work, not after it."""
    if path.suffix not in _WRITERS:
        raise TerminalError(f"{path}: a training set is written as .parquet or .csv")
    if not path.parent.is_dir():
        raise TerminalError(f"{path}: there is no directory {path.parent}")


def write_table(path: Path, table: pa.Table) -> None:
    """Write a file whole or not at all."""
    _write(path, lambda temporary: _WRITERS[path.suffix](table, temporary))


def write_training_set(path: Path, made: TrainingSet, spine: Path | None = None) -> Path:
    """Write the set, then its receipt, which says where the spine is: in a file of its own, or in the set itself."""
    receipt = replace(made.receipt, spine_file=os.path.relpath(spine or path, path.parent))
    receipt_file = path.with_suffix(".receipt.json")
    write_table(path, made.table)
    _write(receipt_file, lambda temporary: temporary.write_bytes(receipt.to_json()))
    return receipt_file


def read_receipt(path: Path) -> Receipt:
    """Raises TerminalError when it is not there, or is none."""
    try:
        return Receipt.from_json(path.read_bytes())
    except OSError as error:
        raise TerminalError(f"{path}: {error.strerror}") from error
    except TerminalError as error:
        raise TerminalError(f"{path}: {error}") from error


def _write(path: Path, write: Callable[[Path], object]) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        write(temporary)
        temporary.replace(path)
    except OSError as error:
        raise TerminalError(f"{path}: {error}") from error
    finally:
        temporary.unlink(missing_ok=True)
