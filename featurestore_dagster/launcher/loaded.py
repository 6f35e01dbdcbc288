"""Which files a process has loaded its code from, and whether they are still as they were."""

import os
import sys
from collections.abc import Generator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

_WRITING = os.O_WRONLY | os.O_RDWR
_NO_FILES = ("/proc/", "/sys/", "/dev/")

FileState = tuple[int, int, int]


class LoadedFiles:
    """The source of every loaded module, whatever else was read meanwhile (settings, SQL, YAML), and what might be code
    in the user's own directories that were listed; not what runs may have put there.

    Make one per process: the hook that notes what is read stays for the process's life, and costs nothing afterwards.
    """

    def __init__(self) -> None:
        self._recording = False
        self._read: set[str] = set()
        self._listed: set[str] = set()
        self._files: dict[str, FileState | None] = {}
        self._contents: dict[str, bytes] = {}  # of the user's own files
        self._names: dict[str, frozenset[str]] = {}
        sys.addaudithook(self._note)

    @contextmanager
    def recorded(self) -> Generator[None]:
        """Note what is read inside."""
        self._recording = True
        try:
            yield
        finally:
            self._recording = False
        sources = (getattr(module, "__file__", None) for module in list(sys.modules.values()))
        paths = self._read.union(path for path in sources if path)
        self._files = {path: _state(path) for path in paths if not path.startswith(_NO_FILES)}
        self._contents = {path: _content(path) for path in self._files if not path.startswith(_installed())}
        self._names = {path: _names(path) for path in self._listed if not path.startswith(_installed())}

    def changed(self) -> str:
        """A path that is not as it was when it was recorded; empty if all are. One that was written again with the same
        content, as a checkout or a service does, is as it was."""
        for path, recorded in self._files.items():
            state = _state(path)
            if state != recorded and self._contents.get(path) != _content(path):
                return path
            self._files[path] = state
        return next((path for path, names in self._names.items() if _names(path) != names), "")

    def _note(self, event: str, arguments: tuple[object, ...]) -> None:
        if not self._recording or event not in {"open", "os.listdir", "os.scandir"} or not arguments:
            return
        path = arguments[0]
        if not isinstance(path, str):
            return
        whole = str(Path(path).absolute())
        if event != "open":
            self._listed.add(whole)
        elif not path.endswith(".pyc") and not (isinstance(arguments[-1], int) and arguments[-1] & _WRITING):
            self._read.add(whole)


def _state(path: str) -> FileState | None:
    try:
        found = os.stat(path)  # noqa: PTH116  # of thousands of files before each run
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def _content(path: str) -> bytes:
    """A digest; of nothing where nothing can be read."""
    try:
        return sha256(Path(path).read_bytes()).digest()
    except OSError:
        return b""


def _names(path: str) -> frozenset[str]:
    try:
        return frozenset(name for name in os.listdir(path) if _may_be_code(name))
    except OSError:
        return frozenset()


def _may_be_code(name: str) -> bool:
    return name.endswith((".py", ".yaml", ".yml")) or ("." not in name and name != "__pycache__")


def _installed() -> tuple[str, ...]:
    return tuple({sys.prefix, sys.base_prefix, sys.exec_prefix})
