"""P1, the way in: every acknowledged record is landed exactly once, or in the dead letters with its reason.

Daemons that each believe to own every partition compete for one landing zone and are killed at random, while records
keep coming. Negative control: with rename instead of the exclusive create, records land twice.
"""

import random
import signal
import threading

import pytest

from featurestore.settings import Settings
from tests.ingest.kafka.conftest import Topic, assert_kept
from tests.ingest.kafka.conftest import settings as settings
from tests.ingest.kafka.conftest import topic as topic
from tests.ingest.sending import Sent, sending
from tests.ingest.zombies import Audit, Zombies, audit, patiently, tails, zombies

pytestmark = [pytest.mark.services, pytest.mark.slow, pytest.mark.timeout(300)]

SEED = 8


def storm(topic: Topic, settings: Settings, *, kills: int, variant: str = "") -> tuple[Sent, Audit, Zombies]:
    """Records, competition and kills; then, undisturbed, the rest."""
    topic.create(partitions=2)
    chance, never = random.Random(SEED), threading.Event()
    with zombies(settings, topic.name, count=3, seed=SEED, variant=variant) as daemons:
        with sending(topic) as sent:
            patiently(lambda: tails(settings).total() > 0)
            while daemons.kills < kills:
                never.wait(chance.uniform(0.3, 2.0))  # the daemons' time to do something worth a kill
                daemons.kill_one()
            landed = tails(settings).total()
            patiently(lambda: tails(settings).total() > landed)
        patiently(lambda: tails(settings) == sent.ends)
        assert set(daemons.stop()) <= {0, -signal.SIGTERM}  # one that has just been started has nothing to drain
    return sent, audit(settings), daemons


def test_every_record_is_landed_once_however_daemons_compete_and_die(topic: Topic, settings: Settings) -> None:
    sent, found, daemons = storm(topic, settings, kills=8)

    assert daemons.fenced > 0, "the daemons never met: nothing was tried"
    assert found.twice == 0
    assert found.rows == sent.good
    assert found.dead == sent.bad
    assert found.absent == 0
    assert_kept(settings)


def test_control_with_rename_records_land_twice(topic: Topic, settings: Settings) -> None:
    _, found, _ = storm(topic, settings, kills=8, variant="rename")

    assert found.twice > 0
