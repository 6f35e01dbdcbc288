"""Work that is killed at each of its steps, a step being an fsync: that is where what was done becomes durable.

`python -m tests.stepwise module:function directory` reads numbers from its standard input and does the work in a child
for each, killed (SIGKILL) right before its n-th fsync.
"""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

MAX_STEPS = 200


def kill_at_each_step(work: str, home: Path, *, check: Callable[[], None]) -> int:
    """Do `work` ("module:function", called with `home`) killed at step 1, 2, … until it ends by itself.

    Each time `home` is as it was at first. `check` is called after each death, and after the end. Returns how often
    it was killed.
    """
    pristine = home.with_name(f"{home.name}.pristine")
    shutil.copytree(home, pristine)
    command = [sys.executable, "-m", "tests.stepwise", work, str(home)]
    root = Path(__file__).parent.parent
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=root) as process:
        assert process.stdin
        assert process.stdout
        for step in range(1, MAX_STEPS):
            shutil.rmtree(home)
            shutil.copytree(pristine, home)
            process.stdin.write(f"{step}\n")
            process.stdin.flush()
            status = process.stdout.readline().strip()
            assert status in {"0", str(-signal.SIGKILL)}, status
            check()
            if status == "0":
                process.stdin.close()
                return step - 1
    raise AssertionError(f"{work} does not end within {MAX_STEPS} steps")


def _main(work: str, home: str) -> None:
    module, _, name = work.partition(":")
    function = getattr(import_module(module), name)
    for line in sys.stdin:
        child = os.fork()
        if not child:
            _do(function, Path(home), int(line))
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)  # noqa: T201  # what the test reads


def _do(function: Callable[[Path], None], home: Path, last: int) -> None:
    fsync, steps = os.fsync, 0

    def dying(handle: int) -> None:
        nonlocal steps
        steps += 1
        if steps == last:
            os.kill(os.getpid(), signal.SIGKILL)
        fsync(handle)

    os.fsync = dying
    code = 1
    try:
        function(home)
        code = 0
    finally:
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    _main(sys.argv[1], sys.argv[2])
