"""Records of their own users beside a stream of events: from produced to readable in Redis."""

import json
import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from confluent_kafka import Producer

from featurestore.online.values import Status
from featurestore.store import Store
from featurestore_dagster.features.user import USER_ACTIVITY, USER_EVENTS
from tests.e2e.platform import Platform

GAP_S, LOOK_S, WITHIN_S = (1.0, 4.0), 0.05, 30.0
FIRST_USER = 1_000_000_000


class Probes:
    """Records of users that nobody else has, sent at random moments and looked for in Redis."""

    def __init__(self, platform: Platform, store: Store) -> None:
        settings = platform.settings
        self._store, self._topic = store, settings.name(USER_EVENTS.topic_name, ".")
        self._kafka = {"bootstrap.servers": settings.kafka.brokers, "acks": "all", "linger.ms": 0}
        self._chance = random.Random(1)
        self.sent = 0

    @contextmanager
    def going_on(self, readable_s: list[float]) -> Iterator[None]:
        """Beside what is done inside; at the end those on their way are waited for, or counted with their age."""
        stop = threading.Event()
        thread = threading.Thread(target=self._go_on, args=(stop, readable_s))
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()

    def _go_on(self, stop: threading.Event, readable_s: list[float]) -> None:
        sent_at: dict[int, float] = {}
        with Producer(self._kafka) as producer:
            while not stop.is_set():
                user = self._send(producer)
                sent_at[user] = time.monotonic()
                next_at = sent_at[user] + self._chance.uniform(*GAP_S)
                while time.monotonic() < next_at and not stop.wait(LOOK_S):
                    readable_s += self._arrived(sent_at)
        until = time.monotonic() + WITHIN_S
        while sent_at and time.monotonic() < until:
            readable_s += self._arrived(sent_at)
            time.sleep(LOOK_S)  # noqa: TID251
        readable_s += [time.monotonic() - at for at in sent_at.values()]

    def _send(self, producer: Producer) -> int:
        self.sent += 1
        user = FIRST_USER + self.sent
        record = {"user_id": user, "action": "click", "timestamp": datetime.now(UTC).isoformat()}
        producer.produce(self._topic, json.dumps(record), str(user))
        producer.flush(10)
        return user

    def _arrived(self, sent_at: dict[int, float]) -> list[float]:
        """How long those took that are readable now; they are taken out."""
        if not sent_at:
            return []
        users = list(sent_at)
        rows = self._store.online({"user_id": users}, [USER_ACTIVITY["last_action"]])
        now = time.monotonic()
        there = [user for user, row in zip(users, rows, strict=True) if row["last_action"].status is Status.PRESENT]
        return [now - sent_at.pop(user) for user in there]
