"""What a process of the platform wrote."""

import argparse
import os
import threading
from pathlib import Path

from featurestore.settings import Settings
from featurestore_cli.arguments import whole_number
from featurestore_cli.output import complain, say
from featurestore_cli.stack.service import last_lines
from featurestore_cli.stack.state import Home

POLL_S = 0.3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "name", nargs="?", metavar="NAME", help="of the process (as in `status`); all of them without it"
    )
    parser.add_argument("-f", "--follow", action="store_true", help="go on as it writes")
    parser.add_argument(
        "-n", "--lines", type=whole_number, default=20, metavar="N", help="how many (default: %(default)s)"
    )


def run(args: argparse.Namespace, settings: Settings) -> int:
    logs = {path.stem: path for path in sorted(Home(settings.data_dir).logs.glob("*.log"))}
    if args.name and args.name not in logs:
        complain(f"error: no process {args.name!r} has written anything; there is {', '.join(logs) or 'none'}")
        return 1
    chosen = (
        [_Log(args.name, logs[args.name], "")] if args.name else [_Log(n, p, f"{n:<14} | ") for n, p in logs.items()]
    )
    try:
        for log in chosen:
            for line in last_lines(log.path, args.lines):
                say(f"{log.prefix}{line}")
        never = threading.Event()
        while args.follow:
            for log in chosen:
                log.show_new()
            never.wait(POLL_S)
    finally:
        for log in chosen:
            log.close()
    return 0


class _Log:
    """A file that grows, and is replaced by a new one now and then."""

    def __init__(self, name: str, path: Path, prefix: str) -> None:
        self.name, self.path, self.prefix = name, path, prefix
        self._file = path.open("rb")
        self._file.seek(0, os.SEEK_END)
        self._begun = b""  # a line that is not yet whole

    def show_new(self) -> None:
        self._show(self._file.read())
        if self._replaced():
            self._show(self._file.read())  # what came between
            self._file.close()
            self._file = self.path.open("rb")
            self._show(self._file.read())

    def close(self) -> None:
        self._file.close()

    def _replaced(self) -> bool:
        try:
            return self.path.stat().st_ino != os.fstat(self._file.fileno()).st_ino
        except FileNotFoundError:
            return False  # between the two steps of turning over

    def _show(self, new: bytes) -> None:
        *lines, self._begun = (self._begun + new).split(b"\n")
        for line in lines:
            say(f"{self.prefix}{line.decode(errors='replace')}")
