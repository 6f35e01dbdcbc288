"""Say what is wrong with the platform on this machine, and what to do about each thing."""

import argparse
import os
from dataclasses import asdict

from featurestore.settings import Settings
from featurestore_cli.arguments import add_json
from featurestore_cli.output import emit, say
from featurestore_cli.stack.checkup import Patient, examine
from featurestore_cli.stack.state import Home


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_json(parser)


def run(args: argparse.Namespace, settings: Settings) -> int:
    environ = os.environ  # noqa: TID251  # to see what is set, and which programs are there
    findings = examine(Patient(Home(settings.data_dir), settings, environ))
    if args.json:
        emit([asdict(one) for one in findings])
    else:
        for one in findings:
            say(f"{'✗' if one.wrong else '·'} {one.what}")
            say(f"    → {one.advice}")
        if not findings:
            say("nothing is wrong")
    return 1 if any(one.wrong for one in findings) else 0
