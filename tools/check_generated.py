"""Fail when something that is generated is not what its source gives: protobuf code, dashboards, the lock file."""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import generate_dashboards
from generate_protobuf import TREE, generate

LOCK = "requirements.lock"
# The same options as `make lock`; without --upgrade the versions in the lock are kept as long as they fit.
COMPILE = "pip compile --universal --generate-hashes --no-header --no-emit-index-url --no-strip-extras --all-extras"


def stale_protobuf(scratch: Path) -> list[str]:
    return [
        f"{path} is not what proto/ gives; run `make proto`"
        for path in generate(scratch)
        if (TREE / path).read_bytes() != (scratch / path).read_bytes()
    ]


def stale_dashboards(scratch: Path) -> list[str]:
    fresh = {path.name: (scratch / path).read_text() for path in generate_dashboards.generate(scratch)}
    kept = {path.name: path.read_text() for path in (TREE / generate_dashboards.DIRECTORY).iterdir()}
    return (
        [] if fresh == kept else [f"{generate_dashboards.DIRECTORY} is not what its code gives; run `make dashboards`"]
    )


def stale_lock(scratch: Path) -> list[str]:
    shutil.copy(TREE / LOCK, scratch / LOCK)
    uv = Path(sys.executable).with_name("uv")
    subprocess.run(
        [uv, *COMPILE.split(), "--python-version", "3.11", "--quiet", "pyproject.toml", "-o", scratch / LOCK],
        cwd=TREE,
        check=True,
    )
    fresh = (scratch / LOCK).read_text() == (TREE / LOCK).read_text()
    return [] if fresh else [f"{LOCK} does not fit pyproject.toml; run `make lock`"]


CHECKS = (stale_protobuf, stale_dashboards, stale_lock)


def main() -> int:
    with tempfile.TemporaryDirectory() as directory:
        problems = [problem for stale in CHECKS for problem in stale(Path(directory))]
    for problem in problems:
        sys.stderr.write(f"error: {problem}\n")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
