"""Loading and scoring a version in a process of its own: whatever its artifacts do, they do it there.

The child gets the version and its artifacts in a directory, within bounds of memory and time, and says on stdout what
it found. That it ends in any other way is a finding as well.
"""

import math
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec

from featurestore.models.metadata import ModelVersion, decode, encode
from featurestore.models.onnx import ModelError, OnnxModel, load

SCORE_TOLERANCE = 1e-6  # relative and absolute; float32 has about 7 digits
TIMEOUT_S = 60.0
MEMORY_BYTES = 8 * 2**30  # of addresses, of which a runtime reserves more than it uses

_VERSION = "version.json"
_SAID = 300  # characters of what a child that failed wrote last

Finding = tuple[str, str]  # what, why; see featurestore.models.gate.Refusal


def try_out(version: ModelVersion, artifacts: Mapping[str, bytes]) -> list[Finding]:
    """Why the version cannot be loaded, or does not score as it did when it was trained; empty: it can, and it does."""
    with tempfile.TemporaryDirectory(prefix="featurestore-trial-") as directory:
        (Path(directory) / _VERSION).write_bytes(encode(version))
        for artifact_type, data in artifacts.items():
            (Path(directory) / artifact_type).write_bytes(data)
        try:
            child = subprocess.run(
                [sys.executable, "-m", __name__, directory],
                capture_output=True,
                timeout=TIMEOUT_S,
                check=False,
                env={},  # no address and no secret for whatever runs there
                cwd=directory,
            )
        except subprocess.TimeoutExpired:
            return [("onnx", f"it could not be loaded and scored within {TIMEOUT_S:g} s")]
    if child.returncode == 0:
        return msgspec.json.decode(child.stdout, type=list[Finding])
    said = child.stderr.decode(errors="replace").strip().splitlines()
    how = f"by signal {-child.returncode}" if child.returncode < 0 else f"with exit code {child.returncode}"
    return [("onnx", f"the process that loaded and scored it ended {how}: {said[-1][:_SAID] if said else 'no word'}")]


def findings(version: ModelVersion, artifacts: Mapping[str, bytes]) -> Iterator[Finding]:
    """The same, in this process."""
    try:
        model = load(version, artifacts)
        if model.width not in {None, len(version.expected_features)}:
            yield "inputs", f"it takes {model.width} inputs, and {len(version.expected_features)} are expected"
            return
        yield from _golden(version, model)
    except ModelError as error:
        yield "onnx", str(error)


def _golden(version: ModelVersion, model: OnnxModel) -> Iterator[Finding]:
    if not version.golden:
        yield "golden", "there are no golden rows; a model with swapped inputs could not be told from this one"
        return
    for number, row in enumerate(version.golden):
        if len(row.inputs) != len(version.expected_features):
            yield "golden", f"golden row {number} has {len(row.inputs)} inputs"
            continue
        [score] = model.score([[value for value in row.inputs if not isinstance(value, str)]])
        if not math.isclose(score, row.score, rel_tol=SCORE_TOLERANCE, abs_tol=SCORE_TOLERANCE):
            yield "golden", f"golden row {number} scores {score:.9g} instead of {row.score:.9g}"


def main(directory: Path) -> None:
    """The child."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    version = decode((directory / _VERSION).read_bytes(), _VERSION)
    artifacts = {one.artifact_type: (directory / one.artifact_type).read_bytes() for one in version.artifacts}
    found = list(findings(version, artifacts))
    sys.stdout.buffer.write(msgspec.json.encode(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
