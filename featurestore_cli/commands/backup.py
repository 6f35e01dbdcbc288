"""Copy everything that the features are made of into a directory; the platform may run."""

import argparse
from datetime import UTC, datetime
from pathlib import Path

from featurestore.recovery.backup import Places, back_up, verify
from featurestore.settings import Settings
from featurestore_cli.output import count, say, show_progress


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("directory", type=Path, help="where; a second backup into it copies what is new")
    parser.add_argument("--verify", action="store_true", help="only read the backup that is there, every byte")


def run(args: argparse.Namespace, settings: Settings) -> int:
    if args.verify:
        backup = verify(args.directory, progress=show_progress)
    else:
        backup = back_up(Places.of(settings), args.directory, datetime.now(UTC), progress=show_progress)
    size = sum(one.bytes for one in backup.files)
    say(f"{count(len(backup.files))} files, {count(size)} bytes, of {backup.made_at:%Y-%m-%d %H:%M:%S} UTC")
    return 0
