"""Which models can be served: models list, models show ID."""

import argparse
from dataclasses import asdict, dataclass
from datetime import datetime

from featurestore.database.client import QueueDatabase
from featurestore.errors import TerminalError
from featurestore.models.publish import Manifest, ModelStore
from featurestore.settings import Settings
from featurestore_cli.output import complain, emit, records, say, text


@dataclass(frozen=True, slots=True)
class Described:
    """A row of `model_metadata`."""

    model_id: str
    artifact_type: str
    version: str
    status: str
    trained_date: datetime
    azure_location: str
    sha256: str
    size_bytes: int


def add_arguments(parser: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="list|show")
    listing = verbs.add_parser("list", help="every model, and what is served of it")
    listing.add_argument("--json", action="store_true")
    showing = verbs.add_parser("show", help="one model: its artifacts, and what it expects")
    showing.add_argument("model_id")
    showing.add_argument("--json", action="store_true")


def run(args: argparse.Namespace, settings: Settings) -> int:
    store = ModelStore(settings.redis.url, namespace=settings.namespace, timeout_s=settings.redis.timeout_s)
    database = QueueDatabase.of(settings)
    try:
        columns = ", ".join(Described.__dataclass_fields__)
        known = database.query(f"SELECT {columns} FROM model_metadata ORDER BY ALL", into=Described)
        return _list(args, store, known) if args.verb == "list" else _show(args, store, known)
    finally:
        database.close()
        store.close()


def _list(args: argparse.Namespace, store: ModelStore, known: list[Described]) -> int:
    """A model is served while it is in `prod_models`; its manifest says which version."""
    served = store.model_ids()
    rows: list[dict[str, object]] = []
    for model_id in sorted(served | {one.model_id for one in known}):
        manifest = store.manifest(model_id) if model_id in served else None
        versions = sorted({one.version for one in known if one.model_id == model_id})
        rows.append({"model": model_id, "served": manifest.version if manifest else None, "known": ", ".join(versions)})
    if args.json:
        emit(rows)
    elif rows:
        records(rows, ("model", "served", "known"))
    else:
        complain("no model is known yet")
    return 0


def _show(args: argparse.Namespace, store: ModelStore, known: list[Described]) -> int:
    artifacts = [one for one in known if one.model_id == args.model_id]
    manifest = store.manifest(args.model_id)
    if not artifacts and manifest is None:
        raise TerminalError(f"there is no model {args.model_id!r}; `featurestore models list` names all")
    if args.json:
        emit({"served": asdict(manifest) if manifest else None, "artifacts": [asdict(one) for one in artifacts]})
        return 0
    say(f"{args.model_id}  served: {_served(manifest)}")
    headers = ("artifact_type", "version", "status", "trained_date", "size_bytes", "azure_location")
    records([asdict(one) for one in artifacts], headers)
    return 0


def _served(manifest: Manifest | None) -> str:
    return text(manifest.version) if manifest and manifest.version else "nothing"
