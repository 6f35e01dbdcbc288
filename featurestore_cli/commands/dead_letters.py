"""Records that could not be landed: dead-letters list, dead-letters show BATCH."""

import argparse
from collections import Counter

from featurestore.errors import TerminalError
from featurestore.landing.storage import open_storage
from featurestore.landing.zone import LandingZone
from featurestore.settings import Settings
from featurestore_cli.output import complain, emit, records

_SHOWN_BYTES = 120


def add_arguments(parser: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="list|show")
    listing = verbs.add_parser("list", help="how many, by source and reason")
    listing.add_argument("--source")
    listing.add_argument("--json", action="store_true")
    showing = verbs.add_parser("show", help="the dead letters of a batch or upload")
    showing.add_argument("batch", help="a batch's id, or an upload's id")
    showing.add_argument("--json", action="store_true")


def run(args: argparse.Namespace, settings: Settings) -> int:
    zone = LandingZone(open_storage(settings))
    return _list(zone, args) if args.verb == "list" else _show(zone, args)


def _list(zone: LandingZone, args: argparse.Namespace) -> int:
    counts = Counter((batch.source, one.reason) for batch, one in zone.dead_letters(args.source))
    rows = [{"source": source, "count": n, "reason": reason} for (source, reason), n in counts.most_common()]
    if args.json:
        emit(rows)
    elif rows:
        records(rows, ("source", "count", "reason"))
    else:
        complain("there are no dead letters")
    return 0


def _show(zone: LandingZone, args: argparse.Namespace) -> int:
    # An upload's id names its directory; a batch's id is its path.
    wanted = {args.batch, f"upload={args.batch}"}
    batches = [b for b in zone.batches() if b.batch_id in wanted or wanted & set(b.chain.split("/"))]
    if not batches:
        raise TerminalError(
            f"nothing landed is called {args.batch!r}; `featurestore dead-letters list` counts what there is"
        )
    rows = [
        {"row": one.sequence, "reason": one.reason, "record": one.raw[:_SHOWN_BYTES].decode(errors="backslashreplace")}
        for batch in batches
        for one in zone.dead_letters_of(batch)
    ]
    emit(rows) if args.json else records(rows, ("row", "reason", "record"))
    return 0
