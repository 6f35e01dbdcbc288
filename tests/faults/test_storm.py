"""Kafka daemons of one group, killed and frozen while records keep coming: P1, P2 and P8 hold. Hours in `make soak`."""

import random
import threading
import time

import pytest

from featurestore.settings import Settings
from tests.ingest.kafka.conftest import Topic, assert_kept
from tests.ingest.kafka.conftest import settings as settings
from tests.ingest.kafka.conftest import topic as topic
from tests.ingest.sending import sending
from tests.ingest.zombies import Zombies, audit, patiently, tails, zombies
from tests.services import ENV

pytestmark = [pytest.mark.services, pytest.mark.slow, pytest.mark.timeout(300)]

SESSION_S = 6.0  # after which a frozen daemon's partitions go to others; the broker allows no less


def storm(topic: Topic, settings: Settings, *, seed: int, for_s: float, faults: int, group: str) -> Zombies:
    """At least so many faults, for at least so long; then, undisturbed, the rest; then the audit."""
    topic.create(partitions=3)
    chance, never, until = random.Random(seed), threading.Event(), time.monotonic() + for_s
    with zombies(settings, topic.name, count=3, seed=seed, group=group) as daemons:
        with sending(topic) as sent:
            patiently(lambda: tails(settings).total() > 0, within_s=150)
            done = 0
            while done < faults or time.monotonic() < until:
                never.wait(chance.uniform(0.2, 2.0))
                if done % 3 == 1:
                    daemons.freeze_one(chance.uniform(0.5, 1.3) * SESSION_S)
                else:
                    daemons.kill_one()
                done += 1
            landed = tails(settings).total()
            patiently(lambda: tails(settings).total() > landed)
        patiently(lambda: tails(settings) == sent.ends)
    found = audit(settings)
    assert (found.twice, found.absent) == (0, 0)
    assert found.rows == sent.good
    assert found.dead == sent.bad
    assert_kept(settings)
    return daemons


def test_a_group_whose_members_are_killed_and_frozen(topic: Topic, settings: Settings) -> None:
    storm(topic, settings, seed=11, for_s=0, faults=3, group=f"storm-{topic.name}")


@pytest.mark.soak
@pytest.mark.timeout(0)
@pytest.mark.parametrize("shared", [True, False], ids=["one group", "zombies"])
def test_for_as_long_as_one_likes(topic: Topic, settings: Settings, shared: bool) -> None:
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")  # noqa: T201  # to do it again
    for_s, group = float(ENV.get("SOAK_S", "60")) / 2, f"storm-{topic.name}" if shared else ""
    daemons = storm(topic, settings, seed=seed, for_s=for_s, faults=1, group=group)
    assert shared or daemons.fenced > 0, "the daemons never met: nothing was tried"
