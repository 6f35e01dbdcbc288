"""kill -9 of an upload before each of its steps: P1, nothing lands twice or is lost; P2, nothing is said too early."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.ingest.grpc.dying import FILE, RECORDS, ROWS
from tests.services import ENV

EVENTS = len(RECORDS) - 1


def steps(directory: Path, variant: str = "", *, stride: int = 1) -> list[dict[str, Any]]:
    program = [sys.executable, "-m", "tests.ingest.grpc.dying", str(directory), str(stride), variant]
    done = subprocess.run(program, env=ENV, capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def said_too_early(found: dict[str, Any]) -> bool:
    """Whether a sender was told of something that is not there after the kill."""
    told = found["told"]
    landed_rows = sum(found["visible"])
    return (
        landed_rows < told["file_landed"] * ROWS + told["events_landed"] * EVENTS
        or found["kept_bytes"] < told["kept_bytes"]
    )


@pytest.mark.slow
def test_an_upload_survives_being_killed_before_each_of_its_steps(tmp_path: Path) -> None:
    found = steps(tmp_path)

    assert len(found) > 30, "hardly anything was tried"
    assert any(0 < one["kept_bytes"] < len(FILE) for one in found)
    for one in found:
        assert not said_too_early(one), one
        assert set(one["visible"]) <= {EVENTS, ROWS}, one  # whole or not at all
        assert one["landed"] == [EVENTS, ROWS], one
        assert one["dead"] == 2, one
        assert one["leftovers"] == 0, one


def test_control_what_is_said_too_early_is_noticed(tmp_path: Path) -> None:
    assert any(said_too_early(one) for one in steps(tmp_path, "early", stride=5))


def test_control_what_is_sent_under_another_id_lands_twice(tmp_path: Path) -> None:
    assert any(one["landed"] == [EVENTS, ROWS, ROWS] for one in steps(tmp_path, "anew", stride=5))
