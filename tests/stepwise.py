"""Work that is killed at each of its steps, a step being an fsync: that is where what was done becomes durable.

A process that is killed (SIGKILL) leaves its files as they are at that moment. So the work is done once, by
`python -m tests.stepwise module:function home moments`, which keeps a copy of `home` right before each fsync and at the
end; each is then what a kill at that moment would have left.
"""

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from itertools import count
from pathlib import Path


def kill_at_each_step(work: str, home: Path, *, check: Callable[[], None]) -> int:
    """Do `work` ("module:function", called with `home`), and `check` what each kill and its end leave in `home`.

    What an earlier moment left byte for byte is not checked again. Returns the number of steps.
    """
    moments = home.with_name(f"{home.name}.moments")
    command = [sys.executable, "-m", "tests.stepwise", work, str(home), str(moments)]
    subprocess.run(command, check=True, cwd=Path(__file__).parent.parent, timeout=120)
    left = sorted(moments.iterdir())
    for moment in {digest(moment): moment for moment in reversed(left)}.values():
        shutil.rmtree(home)
        moment.rename(home)
        check()
    return len(left) - 1


def digest(directory: Path) -> bytes:
    """Of the files and directories in it: names and bytes."""
    found = hashlib.blake2b()
    for path in sorted(directory.rglob("*")):
        data = path.read_bytes() if path.is_file() else b""
        found.update(f"{path.relative_to(directory)} {path.is_file()} {len(data)}\n".encode() + data)
    return found.digest()


def _main(work: str, home: str, moments: str) -> None:
    module, _, name = work.partition(":")
    function, fsync, steps = getattr(import_module(module), name), os.fsync, count(1)

    def keep() -> None:
        shutil.copytree(home, Path(moments) / f"{next(steps):04d}")

    def keeping(handle: int) -> None:
        keep()
        fsync(handle)

    os.fsync = keeping
    function(Path(home))
    keep()


if __name__ == "__main__":
    _main(*sys.argv[1:])
