"""Many batches that wait, and what has become of each."""

from collections.abc import Sequence
from datetime import UTC, datetime

from featurestore.landing.batch import Batch
from featurestore.landing.zone import LandingZone
from featurestore.online.redis_store import RedisOnlineStore
from featurestore.online.values import Status
from featurestore_dagster.testing import land
from tests.featurestore_dagster.live.location import CLICKS, PROJECT, SEARCHES
from tests.featurestore_dagster.live.platform import Live


def landed(zone: LandingZone, batches: int, rows: int) -> list[Batch]:
    """Batches of two sources in turn, each row of a user of its own."""
    found: list[Batch] = []
    for number in range(batches):
        source = (CLICKS, SEARCHES)[number % 2]
        text = next(name for name in source.schema if name != "user_id")
        users = range(number * rows, (number + 1) * rows)
        now = datetime.now(UTC)
        records = [{"user_id": user, "at": now, text: f"{user}"} for user in users]
        found.append(land({"landing": zone}, source, records))
    return found


def forgotten(live: Live, online: RedisOnlineStore, batches: Sequence[Batch]) -> list[str]:
    """What differs between what landed, the ledger, the log and Redis; empty if every row is everywhere, once."""
    applied, now = live.applied(), datetime.now(UTC)
    wrong = [batch.batch_id for batch in batches if applied.get(batch.batch_id) != batch.rows]
    for view in PROJECT.feature_views:
        log = live.log(view.name)
        users = {entity for entity, *_ in log}
        rows = sum(batch.rows for batch in batches if batch.source == view.source.name)
        [feature] = view.online_features
        read = online.read("user", sorted(users), [view[feature.name]], now)
        there = sum(one[feature.name].status is Status.PRESENT for one in read)
        if not len(log) == len(users) == there == rows:
            wrong.append(f"{view.name}: {rows} rows landed, {len(log)} logged of {len(users)} users, {there} in Redis")
    return wrong
