"""What the check of parity does: a sample of online values beside those that the log gives."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from featurestore.definitions.view import FeatureView
from featurestore.errors import FormatError
from featurestore.offline.newest import recent_entity_ids
from featurestore.online.memory import MemoryOnlineStore
from featurestore.online.store import OnlineStore
from featurestore.online.values import OnlineValue, Status
from featurestore.recovery.online import fill
from featurestore_dagster.checks.parity import SAMPLE
from featurestore_dagster.checks.scope import Finding, Scope

LOOKS = 3  # a value that is on its way differs once


def compare(view: FeatureView, scope: Scope) -> Finding:
    """Compare a sample; what differs is compared again, because a push may be on its way."""
    entity_ids = recent_entity_ids(scope.database, [view], SAMPLE)
    differing: Sequence[str] = entity_ids
    wrong: list[str] = []
    for _ in range(LOOKS):
        if not differing:
            break
        found = _differences(view, scope, differing)
        differing, wrong = list(found), list(found.values())
    named = (f"{len(wrong)} of {len(entity_ids)} entities differ, e.g. {wrong[0]}",) if wrong else ()
    return Finding(named, {"entities": len(entity_ids), "differing": len(wrong)})


def _differences(view: FeatureView, scope: Scope, entity_ids: Sequence[str]) -> Mapping[str, str]:
    """By entity, where a store filled from the log alone would answer otherwise."""
    now = datetime.now(UTC)
    served = [_read(scope.online, view, one, now) for one in entity_ids]  # before the log, which may only be ahead
    filled = MemoryOnlineStore()
    fill(view, scope.database, filled, now=now, entity_ids=entity_ids)
    found: dict[str, str] = {}
    for entity_id, online in zip(entity_ids, served, strict=True):
        logged = _read(filled, view, entity_id, now)
        wrong = [name for name, text in logged.items() if online[name] != text]
        if wrong:
            name = wrong[0]
            both = f"{name} is {online[name]} online, {logged[name]} in the log"
            found[entity_id] = f"{view.entity.name} {entity_id}: {both}"
    return found


def _read(online: OnlineStore, view: FeatureView, entity_id: str, now: datetime) -> Mapping[str, str]:
    """By feature, as texts, in which NaN is NaN."""
    features = [view[feature.name] for feature in view.online_features]
    try:
        [row] = online.read(view.entity.name, [entity_id], features, now)
    except FormatError as error:
        return dict.fromkeys((one.name for one in features), f"not readable ({error})")
    return {name: _text(value) for name, value in row.items()}


def _text(value: OnlineValue) -> str:
    shown = repr(value.value) if value.status is Status.PRESENT else value.status.value
    return f"{shown} of {value.event_timestamp:%Y-%m-%d %H:%M:%S.%f}" if value.event_timestamp else shown
