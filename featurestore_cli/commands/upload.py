"""Send a Parquet, CSV or NDJSON file to a source; an upload that is cut goes on where it was."""

import argparse
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TaskProgressColumn

from featurestore.errors import TerminalError
from featurestore.settings import Settings
from featurestore_cli.arguments import add_json
from featurestore_cli.output import counted, emit, say
from ingest.client import Tls, UploadReport, upload

_SHOWN_REJECTED = 10


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, help="*.parquet, *.csv, *.ndjson")
    parser.add_argument("--source", required=True, help="the upload source it belongs to")
    parser.add_argument("--id", help="the upload's name; by default the content's digest, so that it lands once")
    add_json(parser)


def run(args: argparse.Namespace, settings: Settings) -> int:
    if not args.file.is_file():
        raise TerminalError(f"there is no file {args.file}")
    bar = Progress(BarColumn(), TaskProgressColumn(), DownloadColumn(), console=Console(stderr=True))
    task = bar.add_task("upload", total=args.file.stat().st_size)
    with ExitStack() as shown:

        def show(done: int, total: int) -> None:
            if not bar.live.is_started:  # only now, because a file may be refused at once
                shown.enter_context(bar)
            bar.update(task, completed=done, total=total)

        report = upload(
            args.file,
            args.source,
            address=settings.grpc.address,
            token=settings.grpc.token,
            tls=Tls.of(settings.grpc),
            upload_id=args.id,
            progress=show,
        )
    emit(asdict(report)) if args.json else _show(report)
    return 0


def _show(report: UploadReport) -> None:
    say(f"{counted(report.rows, 'row')} landed as {report.upload_id} in {counted(report.parts, 'part')}")
    if report.dead_rows:
        say(f"{counted(report.dead_rows, 'row')} rejected (featurestore dead-letters show {report.upload_id})")
        for row, reason in report.rejected[:_SHOWN_REJECTED]:
            say(f"  row {row:<8} {reason}")
