"""Records that could not be landed: dead-letters list, dead-letters show BATCH, dead-letters replay [BATCH]."""

import argparse
import re
from collections import Counter

from featurestore.definitions.project import load_project
from featurestore.errors import TerminalError
from featurestore.landing.batch import Batch
from featurestore.landing.zone import LandingZone
from featurestore.settings import Settings
from featurestore_cli.arguments import add_json
from featurestore_cli.output import complain, count, emit, records, say
from ingest.replay import replay

_SHOWN_BYTES = 120
_VARYING = re.compile(r"\d{4}-\d\d-\d\dT[\d:.]+(?:Z|[+-][\d:]+)?|(?<=byte )\d+")  # in reasons that are one kind


def add_arguments(parser: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="list|show|replay")
    listing = verbs.add_parser("list", help="how many, by source and reason, and where the newest is")
    listing.add_argument("--source", help="of this source alone")
    add_json(listing)
    showing = verbs.add_parser("show", help="the dead letters of a batch or upload")
    showing.add_argument("batch", help="a batch's id, or an upload's id")
    add_json(showing)
    replaying = verbs.add_parser("replay", help="after a fix: land those that can be landed now, each once")
    replaying.add_argument("batch", nargs="?", help="a batch's id, or an upload's id; without it, all of them")
    replaying.add_argument("--source", help="of this source alone")
    add_json(replaying)


def run(args: argparse.Namespace, settings: Settings) -> int:
    zone = LandingZone.of(settings)
    if args.verb != "show" and args.source and not zone.batches(args.source):
        load_project(settings.project).source(args.source)  # an error that says which there are, or it has sent nothing
    if args.verb == "list":
        return _list(zone, args)
    return _show(zone, args) if args.verb == "show" else _replay(zone, args, settings)


def _list(zone: LandingZone, args: argparse.Namespace) -> int:
    counts: Counter[tuple[str, str]] = Counter()
    newest: dict[tuple[str, str], str] = {}
    for batch, one in zone.dead_letters(args.source):
        kind = batch.source, _VARYING.sub("…", one.reason)
        counts[kind] += 1
        newest[kind] = batch.batch_id
    rows = [
        {"source": kind[0], "count": n, "reason": kind[1], "newest_batch": newest[kind]}
        for kind, n in counts.most_common()
    ]
    if args.json:
        emit(rows)
    elif rows:
        records(rows, ("source", "count", "reason", "newest_batch"))
    else:
        complain("there are no dead letters")
    return 0


def _show(zone: LandingZone, args: argparse.Namespace) -> int:
    rows: list[dict[str, object]] = []
    for batch in _named(zone, args.batch):
        replayed = zone.replayed(batch)
        rows += [
            {
                "row": one.sequence,
                "replayed": one.sequence in replayed,
                "reason": one.reason,
                "record": one.raw[:_SHOWN_BYTES].decode(errors="backslashreplace"),
            }
            for one in zone.dead_letters_of(batch)
        ]
    emit(rows) if args.json else records(rows, ("row", "replayed", "reason", "record"))
    return 0


def _replay(zone: LandingZone, args: argparse.Namespace, settings: Settings) -> int:
    project = load_project(settings.project)
    batches = _named(zone, args.batch) if args.batch else zone.batches(args.source)
    refused: Counter[tuple[str, str]] = Counter()
    landed: list[Batch] = []
    for origin in (batch for batch in batches if batch.dead_rows):
        outcome = replay(zone, project, origin)
        landed += [outcome.landed] if outcome.landed else []
        refused.update((origin.source, reason) for reason in outcome.reasons)
    rows = [{"source": source, "count": n, "reason": reason} for (source, reason), n in refused.most_common()]
    if args.json:
        replayed = [{"batch": one.batch_id, "origin": one.origin, "rows": one.rows} for one in landed]
        emit({"replayed": replayed, "refused": rows})
        return 0
    say(f"{count(sum(one.rows for one in landed))} replayed, {count(refused.total())} still refused")
    if rows:
        records(rows, ("source", "count", "reason"))
    return 0


def _named(zone: LandingZone, name: str) -> list[Batch]:
    """The batches that a name stands for: an upload's id names its directory, a batch's id is its path."""
    wanted = {name, f"upload={name}"}
    batches = [b for b in zone.batches() if b.batch_id in wanted or wanted & set(b.chain.split("/"))]
    if not batches:
        raise TerminalError(f"nothing landed is called {name!r}; `featurestore dead-letters list` counts what there is")
    return batches
