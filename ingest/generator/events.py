"""User events: made up, and sent by several producers at once."""

import json
import logging
import random
import threading
import time
from collections import deque
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
        self._now, self._time = datetime.min.replace(tzinfo=UTC), ""

    def event(self, now: datetime) -> tuple[int, str, bool]:
        """A user, a record, and whether it can be landed."""
        if now is not self._now:  # the events of a burst have one time
            self._now, self._time = now, now.isoformat()
        user = self._users[int(self._random.random() * len(self._users))]
        action = _ACTIONS[int(self._random.random() * len(_ACTIONS))]
        if self._random.random() < self._bad_share:
            return user, self._bad(user, action, now), False
        amount = f', "amount": {self._random.uniform(1, 200):.2f}' if action == "purchase" else ""
        return user, f'{{"user_id": {user}, "action": "{action}", "timestamp": "{self._time}"{amount}}}', True

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


class _Burst:
    """Events that are sent together; they count once each of them is acknowledged."""

    def __init__(self) -> None:
        self._sent = Sent()
        self._size = self._unacknowledged = 0

    def add(self, user: int, record: bytes, *, good: bool) -> dict[str, bytes]:
        """Take an event; returns it as a message."""
        key = str(user)
        if good:
            self._sent.good_one(key, record)
        else:
            self._sent.bad += 1
        self._size += 1
        self._unacknowledged += 1
        return {"key": key.encode(), "value": record}

    def acknowledge(self, error: KafkaError | None, _: Message) -> None:
        if error is None:
            self._unacknowledged -= 1
        else:
            log.warning("an event was not acknowledged: %s", error.str())

    @property
    def is_acknowledged(self) -> bool:
        return self._unacknowledged == 0

    @property
    def sent(self) -> Sent:
        """What it was; without every acknowledgement any of it may have arrived."""
        return self._sent if self.is_acknowledged else Sent(in_doubt=self._size)


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
        self._bursts: deque[_Burst] = deque()
        queue = {"queue.buffering.max.messages": "50000", **settings.kafka.client}
        self._queue_events = int(queue["queue.buffering.max.messages"])
        self._producer = Producer(
            {
                "linger.ms": 10,
                **queue,
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
            due = min(self._due(made, time.monotonic() - began_s), self._most - made)
            if due and self._has_room(due):
                self._send(due)
                made += due
            self._producer.poll(0)
            if time.monotonic() - told_s >= _TELL_S:
                told_s = time.monotonic()
                self._report()
            if self._per_s and due < _BURST:  # else more is due by now
                self._stopping.wait(max(_TICK_S, (made + 1) / self._per_s - (time.monotonic() - began_s)))
        self._producer.flush(_FLUSH_S)
        self._report(end=True)

    def _due(self, made: int, elapsed_s: float) -> int:
        """How many events to send now. What could not be sent in time is made up for, a burst at a time."""
        most = min(_BURST, self._queue_events)
        return min(most, max(0, int(elapsed_s * self._per_s) - made)) if self._per_s else most

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

    def _has_room(self, events: int) -> bool:
        """Whether the producer takes so many more at once: a part of them would be sent in another order."""
        if len(self._producer) + events <= self._queue_events:
            self.note = ""
            return True
        if self._producer.poll(_WAIT_S) == 0:
            self.note = "waiting for Kafka to take events"
        return False

    def _send(self, events: int) -> None:
        burst, now = _Burst(), datetime.now(UTC)
        made = (self._maker.event(now) for _ in range(events))
        messages = [burst.add(user, record.encode(), good=good) for user, record, good in made]
        self._producer.produce_batch(self._topic, messages, on_delivery=burst.acknowledge)
        self._bursts.append(burst)

    def _report(self, *, end: bool = False) -> None:
        """Tell of bursts in their order, so that the last event of a user is the last; at the end, of all."""
        sent = Sent()
        while self._bursts and (end or self._bursts[0].is_acknowledged):
            sent.add(self._bursts.popleft().sent)
        self._tell(SOURCE, sent)
