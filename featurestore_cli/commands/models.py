"""Models: push FOLDER, list, show ID, promote ID VERSION, rollback ID, retire ID VERSION."""

import argparse
import getpass
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic
from typing import Any

import msgspec

from featurestore.definitions.project import load_project
from featurestore.errors import TerminalError
from featurestore.models.blobs import ModelBlobs
from featurestore.models.folder import read_folder
from featurestore.models.gate import check
from featurestore.models.history import in_production, next_word
from featurestore.models.metadata import ModelVersion
from featurestore.models.publish import ModelStore
from featurestore.settings import Settings
from featurestore.training.files import read_receipt
from featurestore_cli.arguments import add_json, seconds
from featurestore_cli.output import complain, count, emit, records, say, text

POLL_S = 0.5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="push|list|show|promote|rollback|retire")
    pushing = verbs.add_parser("push", help="put a version into the container; it is not served yet")
    pushing.add_argument("folder", type=Path, help="metadata.json, model.onnx, …; see docs/models.md")
    pushing.add_argument("--receipt", type=Path, help="of the training set: train.receipt.json")
    listing = verbs.add_parser("list", help="every model: what is served of it, and what could be")
    showing = verbs.add_parser("show", help="one version: what it expects, what it was trained on, who said what when")
    showing.add_argument("model_id")
    showing.add_argument("version", nargs="?", help="without: the one in production, or else the newest")
    promoting = verbs.add_parser("promote", help="serve this version from now on")
    rolling = verbs.add_parser("rollback", help="serve the version again that was promoted before this one")
    retiring = verbs.add_parser("retire", help="serve this version no more; without another one, nothing")
    for verb in (promoting, rolling, retiring):
        verb.add_argument("model_id")
        if verb is promoting:
            verb.add_argument("version", nargs="?", help="without: the one that was pushed last")
        if verb is retiring:
            verb.add_argument("version")
        verb.add_argument("--wait", type=seconds, default=0, metavar="S", help="until it is so in Redis, at most S s")
    for verb in (pushing, promoting, rolling, retiring):
        verb.add_argument("--by", default=_user(), help="who says so (default: you)")
    for verb in (listing, showing):
        add_json(verb)


def run(args: argparse.Namespace, settings: Settings) -> int:
    verbs: dict[str, Callable[[argparse.Namespace, Settings, ModelBlobs], int]] = {
        "push": _push,
        "list": _list,
        "show": _show,
        "promote": _promote,
        "rollback": _rollback,
        "retire": _retire,
    }
    with closing(ModelBlobs(settings.azure, settings.namespace)) as blobs:
        return verbs[args.verb](args, settings, blobs)


# ---- changes


def _push(args: argparse.Namespace, settings: Settings, blobs: ModelBlobs) -> int:
    project = load_project(settings.project)
    receipt = _receipt(args.receipt) if args.receipt else {}
    version, artifacts = read_folder(args.folder, project, receipt=receipt, actor=args.by, now=datetime.now(UTC))
    _check_servable(version, artifacts, settings)
    size = count(sum(len(data) for data in artifacts.values()))
    done = "pushed to" if blobs.push(version, artifacts) else "is already in"
    say(f"{version.folder}  {done} {blobs.address}  {len(artifacts)} artifacts, {size} bytes")
    if not receipt:
        complain("no --receipt: nobody can tell later what it was trained on")
    say(f"to serve it: featurestore models promote {version.model_id} {version.version}")
    return 0


def _promote(args: argparse.Namespace, settings: Settings, blobs: ModelBlobs) -> int:
    history = _history(blobs, args.model_id)
    pushed = _pushed(history, args.version or _newest(history))
    artifacts = {one.artifact_type: blobs.download(one) for one in pushed.artifacts}
    _check_servable(pushed, artifacts, settings)
    return _say_so(args, settings, blobs, pushed.version)


def _rollback(args: argparse.Namespace, settings: Settings, blobs: ModelBlobs) -> int:
    promoted = in_production(_history(blobs, args.model_id))
    if len(promoted) < 2:
        only = f"; `featurestore models retire {args.model_id} {promoted[0]}` serves nothing" if promoted else ""
        raise TerminalError(f"model {args.model_id!r} has no version in production to go back to{only}")
    return _say_so(args, settings, blobs, promoted[-1], status="retired")


def _retire(args: argparse.Namespace, settings: Settings, blobs: ModelBlobs) -> int:
    _pushed(_history(blobs, args.model_id), args.version)
    return _say_so(args, settings, blobs, args.version, status="retired")


def _say_so(args: argparse.Namespace, settings: Settings, blobs: ModelBlobs, version: str, **status: Any) -> int:
    """Write down a promotion or its end; the sensor `models` publishes what follows from it."""
    changed = blobs.promote(args.model_id, version, actor=args.by, now=datetime.now(UTC), **status)
    wanted = (in_production(_history(blobs, args.model_id)) or [""])[-1]
    said = "nothing to change: " if not changed else ""
    say(f"{said}{args.model_id}  in production: {wanted or 'no version'}")
    if args.wait:
        _wait_served(args.model_id, wanted, settings, args.wait)
    return 0


def _check_servable(pushed: ModelVersion, artifacts: Mapping[str, bytes], settings: Settings) -> None:
    """What the gate would refuse later is better said now."""
    promoted = next_word([pushed], pushed, actor="", now=pushed.recorded_at, status="production")
    if refusals := check(promoted, artifacts, load_project(settings.project)):
        reasons = "\n".join(f"  {refusal}" for refusal in refusals)
        raise TerminalError(f"{pushed.folder} would not be served:\n{reasons}")


def _wait_served(model_id: str, version: str, settings: Settings, seconds: float) -> None:
    deadline, never = monotonic() + seconds, threading.Event()
    with closing(_store(settings)) as store:
        while _served(store, model_id) != (version or None):
            if monotonic() > deadline:
                raise TerminalError(
                    f"not so in Redis after {seconds:g} s; Dagster's check `servable` of models/production says why"
                )
            never.wait(POLL_S)
    say(f"{model_id}  served: {version or 'nothing'}")


# ---- what there is


def _list(args: argparse.Namespace, settings: Settings, blobs: ModelBlobs) -> int:
    """`production` is what is to be served, `served` what Redis has."""
    scan = blobs.scan()
    histories: dict[str, list[ModelVersion]] = {}
    for one in scan.versions:
        histories.setdefault(one.metadata.model_id, []).append(one.metadata)
    with closing(_store(settings)) as store:
        models = sorted({*histories, *store.model_ids()})
        rows = [_listed(model_id, histories.get(model_id, []), store) for model_id in models]
    if args.json:
        emit(rows)
    elif rows:
        records(rows, ("model", "served", "production", "versions"))
    else:
        complain("no model is known yet; `featurestore models push FOLDER`")
    for one in scan.unusable:
        complain(f"{one.location} cannot be used: {one.reason}")
    return 0


def _listed(model_id: str, history: Sequence[ModelVersion], store: ModelStore) -> dict[str, object]:
    return {
        "model": model_id,
        "served": _served(store, model_id),
        "production": (in_production(history) or [None])[-1],
        "versions": ", ".join(one.version for one in history if not one.promotion),
    }


def _show(args: argparse.Namespace, settings: Settings, blobs: ModelBlobs) -> int:
    history = _history(blobs, args.model_id)
    version = _pushed(history, args.version or (in_production(history) or [_newest(history)])[-1])
    with closing(_store(settings)) as store:
        served = _served(store, args.model_id)
    words = [one for one in history if one.version == version.version]
    if args.json:
        said = [{"status": one.status, "actor": one.actor, "recorded_at": one.recorded_at} for one in words]
        emit({"served": served, "history": said, **msgspec.to_builtins(version)})
    else:
        _print(version, words, served)
    return 0


def _print(version: ModelVersion, words: Sequence[ModelVersion], served: str | None) -> None:
    say(f"{version.model_id}  version {version.version}  {words[-1].status}  (served: {served or 'nothing'})")
    say(f"trained    {text(version.trained_date)}")
    say(f"on         {_trained_on(version.receipt)}")
    say(f"pins       {', '.join(f'{view} v{number}' for view, number in version.view_versions.items())}")
    say()
    records([msgspec.to_builtins(one) for one in version.expected_features], ("index", "name", "type"))
    say()
    artifacts = [{**msgspec.to_builtins(one), "sha256": f"{one.sha256[:12]}…"} for one in version.artifacts]
    records(artifacts, ("artifact_type", "format", "size_bytes", "sha256", "azure_location"))
    say()
    said = [{"when": one.recorded_at, "who": one.actor or None, "status": one.status} for one in words]
    records(said, ("when", "who", "status"))


def _trained_on(receipt: Mapping[str, Any]) -> str:
    """The receipt in a line: what to look for when the training set is wanted again."""
    if "sha256" not in receipt:
        return str(receipt.get("note", "no receipt was given"))
    file = f", labels {receipt['spine_file']}" if receipt.get("spine_file") else ""
    return (
        f"training set {receipt['sha256'][:12]}…, {count(receipt['rows'])} rows, known at {receipt['known_at']}, "
        f"commit_seq {receipt['commit_seq']}{file}"
    )


# ---- inside


def _store(settings: Settings) -> ModelStore:
    return ModelStore(settings.redis.models, namespace=settings.namespace, timeout_s=settings.redis.timeout_s)


def _served(store: ModelStore, model_id: str) -> str | None:
    manifest = store.manifest(model_id)
    return (manifest.version if manifest else "") or None


def _history(blobs: ModelBlobs, model_id: str) -> list[ModelVersion]:
    found = [one.metadata for one in blobs.scan(model_id).versions]
    if not found:
        raise TerminalError(f"there is no model {model_id!r} in {blobs.address}; `featurestore models list` names all")
    return found


def _newest(history: Sequence[ModelVersion]) -> str:
    return [one.version for one in history if not one.promotion][-1]


def _pushed(history: Sequence[ModelVersion], version: str) -> ModelVersion:
    for one in history:
        if (one.version, one.promotion) == (version, 0):
            return one
    known = ", ".join(one.version for one in history if not one.promotion)
    raise TerminalError(f"model {history[0].model_id!r} has no version {version!r}; it has {known}")


def _receipt(path: Path) -> dict[str, Any]:
    """Read as what it is, so that a mistake is found here; kept with the version as it stands in the file."""
    read_receipt(path)
    return msgspec.json.decode(path.read_bytes())


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user often has a number only
        return str(os.getuid())
