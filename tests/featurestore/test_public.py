"""The public names: cheap to import, and all there."""

import subprocess
import sys

import featurestore as fs

HEAVY = {"pyarrow", "duckdb", "redis", "numpy", "msgspec", "dagster", "grpc", "confluent_kafka"}


def test_a_definitions_file_pays_for_the_standard_library_only() -> None:
    code = f"import sys, featurestore; print({HEAVY} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "set()\n"


def test_every_public_name_is_there_and_says_what_it_is() -> None:
    assert all(getattr(fs, name).__doc__ for name in fs.__all__)
