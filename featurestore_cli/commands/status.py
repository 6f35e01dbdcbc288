"""What runs, since when, at which address; and what was counted."""

import argparse
from dataclasses import asdict

from featurestore.definitions.project import load_project
from featurestore.errors import FeatureStoreError
from featurestore.settings import Settings
from featurestore_cli.arguments import add_json
from featurestore_cli.output import age, count, emit, say, table
from featurestore_cli.stack.counts import Counts, read_counts
from featurestore_cli.stack.state import Home, PlatformState, now

NOT_RUNNING = 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_json(parser)


def run(args: argparse.Namespace, settings: Settings) -> int:
    home = Home(settings.data_dir)
    pid, state = home.running(), home.state()
    counts = _counts(settings)
    if args.json:
        emit(
            {
                "running": pid is not None,
                "processes": [asdict(one) for one in state.processes] if state and pid else [],
                "counts": asdict(counts) if counts else None,
            }
        )
    elif pid is None:
        left = "; programs of an `up` that was killed are still ending" if home.leftovers() else ""
        say(f"the platform of {home.path} is not running{left}: `featurestore up`")
    elif state:
        _show(state)
    if counts and not args.json:
        say(accounting(counts))
    return 0 if pid else NOT_RUNNING


def _show(state: PlatformState) -> None:
    at = now()
    rows = [(one.name, one.state, age(one.since, at), one.address or None, one.note) for one in state.processes]
    table(rows, ("process", "state", "since", "address", "note"))


def _counts(settings: Settings) -> Counts | None:
    """None when the stores do not answer; what runs is worth showing all the same."""
    try:
        return read_counts(settings, load_project(settings.project))
    except FeatureStoreError:
        return None


def accounting(counts: Counts) -> str:
    """Where every record is: it has landed or is a dead letter; what is due in views has come there."""
    sent = "" if counts.produced is None else f"the generator sent {count(counts.produced)} · "
    landed = f"landed {count(counts.landed)} + dead letters {count(counts.dead_letters)}"
    parts = (
        ("logged", counts.logged),
        ("filtered", counts.filtered),
        ("quarantined", counts.quarantined),
        *([("erased", counts.erased)] if counts.erased else []),
        ("pending", counts.pending),
    )
    views = " + ".join(f"{name} {count(number)}" for name, number in parts)
    return f"{sent}{landed} · due {count(counts.due)} = {views}"
