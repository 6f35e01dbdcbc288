"""Generate the protobuf code from proto/ into a directory (by default the tree itself)."""

import subprocess
import sys
from pathlib import Path

TREE = Path(__file__).parent.parent
# proto file → the package its code lies in
PACKAGE_OF = {"ingest.proto": "ingest/pb", "serving.proto": "featurestore_serving/pb"}


def generate(out: Path) -> list[Path]:
    """Write the code below `out`; return the files, relative to it."""
    made: list[Path] = []
    for name, package in PACKAGE_OF.items():
        (out / package).mkdir(parents=True, exist_ok=True)
        # The mapped path makes protoc write imports that work from the tree's root.
        outs = [f"--{kind}_out={out}" for kind in ("python", "pyi", "grpc_python")]
        command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{package}=proto", *outs, f"{package}/{name}"]
        subprocess.run(command, cwd=TREE, check=True)
        stem = Path(package) / Path(name).stem
        made += [Path(f"{stem}_pb2.py"), Path(f"{stem}_pb2.pyi"), Path(f"{stem}_pb2_grpc.py")]
    return made


if __name__ == "__main__":
    generate(Path(sys.argv[1]) if len(sys.argv) > 1 else TREE)
