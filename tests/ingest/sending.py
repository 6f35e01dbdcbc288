"""Records that keep coming, and what the broker acknowledged of them."""

import threading
from collections import Counter
from collections.abc import Callable, Generator
from contextlib import contextmanager

from confluent_kafka import KafkaError, Message, Producer

from tests.ingest.kafka.conftest import Topic, record

Place = tuple[int, int]  # partition and offset

USERS, BAD_EVERY = 50, 101


class Sent:
    """Acknowledged records by place: their number, or None for a bad one. The user follows from the number."""

    def __init__(self) -> None:
        self.places: dict[Place, int | None] = {}
        self.ends: Counter[int] = Counter()  # one past the last offset, by partition

    def noting(self, number: int | None) -> Callable[[KafkaError | None, Message], None]:
        def note(error: KafkaError | None, message: Message) -> None:
            assert error is None, error
            partition, offset = message.partition() or 0, message.offset() or 0
            self.places[partition, offset] = number
            self.ends[partition] = offset + 1

        return note

    @property
    def good(self) -> dict[Place, int]:
        return {place: number for place, number in self.places.items() if number is not None}

    @property
    def bad(self) -> set[Place]:
        return {place for place, number in self.places.items() if number is None}


@contextmanager
def sending(topic: Topic, *, per_burst: int = 50, pause_s: float = 0.05, keyed: bool = True) -> Generator[Sent]:
    """Send until the context ends; then every record is acknowledged."""
    sent, stopping = Sent(), threading.Event()
    producer = Producer({"bootstrap.servers": topic.brokers, "enable.idempotence": True, "linger.ms": 5})

    def send() -> None:
        number = 0
        while not stopping.wait(pause_s):
            for _ in range(per_burst):
                number += 1
                user, good = number % USERS, number % BAD_EVERY != 0
                producer.produce(
                    topic.name,
                    record(user, number) if good else b"{",
                    str(user).encode() if keyed else None,
                    on_delivery=sent.noting(number if good else None),
                )
            producer.poll(0)

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield sent
    finally:
        stopping.set()
        thread.join()
        assert producer.flush(30) == 0
