"""User events: made up, and sent by several producers at once."""

import json
import logging
import random
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from featurestore.settings import Settings
from ingest.generator.ledger import Sent

log = logging.getLogger(__name__)

SOURCE = "user_events"

_ACTIONS = ("view", "view", "view", "view", "click", "click", "search", "add_to_cart", "purchase")
_BURST = 1_000  # events between looks at the clock
_TICK_S = 0.1  # between bursts
_TELL_S = 1.0  # between reports of what was acknowledged
_WAIT_S = 0.5  # for a queue that is full, or a Kafka that is away
_FLUSH_S = 15.0  # for acknowledgements, at the end


class EventMaker:
    """Makes events of the users that one producer has to itself, so that each user's order is this producer's."""

    def __init__(self, *, seed: int, producer: int, producers: int, users: int, bad_share: float) -> None:
        self._random = random.Random(f"{seed}/{producer}")
        self._users = range(1 + producer, users + 1, producers) or range(1, 2)
        self._bad_share = bad_share

    def event(self, now: datetime) -> tuple[int, str, bool]:
        """A user, a record, and whether it can be landed."""
        user = self._users[int(self._random.random() * len(self._users))]
        action = _ACTIONS[int(self._random.random() * len(_ACTIONS))]
        if self._random.random() < self._bad_share:
            return user, self._bad(user, action, now), False
        amount = f', "amount": {self._random.uniform(1, 200):.2f}' if action == "purchase" else ""
        return user, f'{{"user_id": {user}, "action": "{action}", "timestamp": "{now.isoformat()}"{amount}}}', True

    def _bad(self, user: int, action: str, now: datetime) -> str:
        event = {"user_id": user, "action": action, "timestamp": now.isoformat()}
        text = json.dumps(event)
        return self._random.choice(
            (
                text[: len(text) // 2],
                text[:-1] + ', "amount": NaN}',
                text[:-1] + f', "user_id": {user}}}',
                json.dumps(event | {"user_id": str(user)}),
                json.dumps(event | {"action": None}),
                json.dumps(event | {"timestamp": now.replace(tzinfo=None).isoformat()}),
                json.dumps(event | {"timestamp": (now + timedelta(days=365)).isoformat()}),
            )
        )


class EventProducer(threading.Thread):
    """One idempotent producer: sends at its rate until it is told to stop, or has sent its share of `max_events`.

    While Kafka is away it waits. Nothing is sent twice or in another order when Kafka comes back.
    """

    def __init__(
        self, number: int, settings: Settings, stopping: threading.Event, tell: Callable[[str, Sent], None]
    ) -> None:
        super().__init__(name=f"producer-{number}", daemon=True)
        generator = settings.generator
        self._stopping, self._tell = stopping, tell
        self._topic = settings.name(SOURCE, ".")
        self._maker = EventMaker(
            seed=generator.seed,
            producer=number,
            producers=generator.producers,
            users=generator.users,
            bad_share=generator.bad_share,
        )
        self._per_s = generator.events_per_s / generator.producers
        share, rest = divmod(generator.max_events, generator.producers)
        self._most = share + (number < rest) if generator.max_events else 1 << 62
        self._sent = Sent()
        self._producer = Producer(
            {
                "linger.ms": 10,
                "queue.buffering.max.messages": 50_000,
                **settings.kafka.client,
                "bootstrap.servers": settings.kafka.brokers,
                "enable.idempotence": True,
                "acks": "all",
                "message.timeout.ms": 0,  # what was taken is sent, however long Kafka is away
            },
            logger=log,
        )
        self.note = ""  # what it waits for

    def run(self) -> None:
        self._await_topic()
        made, began_s, told_s = 0, time.monotonic(), time.monotonic()
        while made < self._most and not self._stopping.is_set():
            due = self._due(made, time.monotonic() - began_s)
            for _ in range(min(due, self._most - made)):
                self._send()
                made += 1
            self._producer.poll(0)
            if time.monotonic() - told_s >= _TELL_S:
                told_s = time.monotonic()
                self._report()
            if self._per_s:
                self._stopping.wait(max(_TICK_S, (made + 1) / self._per_s - (time.monotonic() - began_s)))
        self._sent.in_doubt += self._producer.flush(_FLUSH_S)
        self._report()

    def _due(self, made: int, elapsed_s: float) -> int:
        """How many events to send now. What could not be sent in time is made up for, a burst at a time."""
        return min(_BURST, max(0, int(elapsed_s * self._per_s) - made)) if self._per_s else _BURST

    def _await_topic(self) -> None:
        while not self._stopping.is_set():
            try:
                topic = self._producer.list_topics(self._topic, timeout=_WAIT_S).topics[self._topic]
            except KafkaException as error:
                self.note = f"waiting for Kafka: {error.args[0].str()}"
            else:
                if topic.error is None:
                    self.note = ""
                    return
                self.note = f"waiting for the topic {self._topic}"
            self._stopping.wait(_WAIT_S)

    def _send(self) -> None:
        user, record, good = self._maker.event(datetime.now(UTC))
        while True:
            try:
                self._producer.produce(
                    self._topic, record.encode(), str(user).encode(), on_delivery=self._good if good else self._bad
                )
            except BufferError:
                self.note = "waiting for Kafka to take events"
                self._producer.poll(_WAIT_S)
                if self._stopping.is_set():
                    return
            else:
                self.note = ""
                return

    def _good(self, error: KafkaError | None, message: Message) -> None:
        if error is None:
            self._sent.good_one((message.key() or b"").decode(), message.value() or b"")
        else:
            self._failed(error)

    def _bad(self, error: KafkaError | None, _: Message) -> None:
        if error is None:
            self._sent.bad += 1
        else:
            self._failed(error)

    def _failed(self, error: KafkaError) -> None:
        log.warning("an event was not acknowledged: %s", error.str())
        self._sent.in_doubt += 1

    def _report(self) -> None:
        sent, self._sent = self._sent, Sent()
        self._tell(SOURCE, sent)
