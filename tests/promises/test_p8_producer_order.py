"""P8: order per Kafka key is the producer's order, from the broker to the landed rows, through a kill.

With competition, freezes and other faults it is checked by `assert_kept`, in every test of them.

Negative control: without keys a user's records are spread over partitions, and their landed order is another.
"""

import pytest

from featurestore.landing.zone import LandingZone
from featurestore.settings import Settings
from tests.ingest.kafka.conftest import Topic
from tests.ingest.kafka.conftest import settings as settings
from tests.ingest.kafka.conftest import topic as topic
from tests.ingest.sending import sending
from tests.ingest.zombies import patiently, tails, zombies

pytestmark = [pytest.mark.services, pytest.mark.slow, pytest.mark.timeout(300)]


def landed_by_user(topic: Topic, settings: Settings, *, keyed: bool, kills: int) -> dict[int, list[int]]:
    """Each user's numbers in the order that decides between rows of one time: created_at, then sequence."""
    topic.create(partitions=3)
    with zombies(settings, topic.name, count=1, seed=3) as daemons:
        with sending(topic, keyed=keyed) as sent:
            for _ in range(kills):
                before = tails(settings).total()
                patiently(lambda before=before: tails(settings).total() > before)
                daemons.kill_one()
            before = tails(settings).total()
            patiently(lambda: tails(settings).total() > before)
        patiently(lambda: tails(settings) == sent.ends)
    zone = LandingZone(settings.landing_dir)
    found: dict[int, list[int]] = {}
    for batch in sorted(zone.batches(), key=lambda batch: batch.created_at):
        for row in zone.read(batch).sort_by("sequence").to_pylist():
            found.setdefault(row["user_id"], []).append(row["n"])
    assert sorted(n for numbers in found.values() for n in numbers) == sorted(sent.good.values())
    return found


def test_each_users_records_land_in_the_order_they_were_sent(topic: Topic, settings: Settings) -> None:
    found = landed_by_user(topic, settings, keyed=True, kills=1)

    assert len(found) > 40
    assert all(numbers == sorted(numbers) for numbers in found.values())


def test_control_without_keys_there_is_no_order(topic: Topic, settings: Settings) -> None:
    found = landed_by_user(topic, settings, keyed=False, kills=0)

    assert any(numbers != sorted(numbers) for numbers in found.values())
