"""The generated code is what its .proto file generates."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_generated_code_is_up_to_date(tmp_path: Path) -> None:
    into = [f"--{kind}={tmp_path}" for kind in ("python_out", "pyi_out", "grpc_python_out")]
    command = [sys.executable, "-m", "grpc_tools.protoc", "-Iingest/pb=proto", *into, "proto/ingest.proto"]
    subprocess.run(command, cwd=ROOT, check=True, timeout=60)

    generated = {path.name: path.read_text() for path in (tmp_path / "ingest" / "pb").iterdir()}

    assert generated == {name: (ROOT / "ingest" / "pb" / name).read_text() for name in generated}
    assert len(generated) == 3
