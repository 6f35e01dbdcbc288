"""What a process may take is bounded."""

import subprocess
import sys

import pytest

from featurestore.errors import SettingsError
from featurestore.process.memory import parse_bytes


@pytest.mark.parametrize(("text", "size"), [("2GB", 2 * 10**9), ("1.5 GiB", 3 * 2**29), ("500mb", 5 * 10**8), ("7", 7)])
def test_sizes_are_read_as_duckdb_does(text: str, size: int) -> None:
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["", "much", "2 parsecs", "-1GB"])
def test_what_is_no_size_is_said(text: str) -> None:
    with pytest.raises(SettingsError, match="is not a size"):
        parse_bytes(text)


def test_more_than_the_bound_is_refused_and_the_process_lives() -> None:
    code = """
from featurestore.process.memory import bound_memory
bound_memory(200_000_000)
kept = bytearray(50_000_000)
try:
    bytearray(500_000_000)
except MemoryError:
    print("refused")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "refused\n"
