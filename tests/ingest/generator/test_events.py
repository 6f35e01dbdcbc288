"""Made-up events: the same for the same seed, good ones that land and bad ones that do not."""

from datetime import UTC, datetime

import pytest

import featurestore as fs
from featurestore.landing.columns import Door
from ingest.generator.events import EventMaker
from ingest.records import JsonDecoder

NOW = datetime(2026, 6, 1, tzinfo=UTC)
SOURCE = fs.KafkaSource(
    "user_events", timestamp="timestamp", schema={"user_id": int, "action": str, "amount": float | None}
)
DOOR = Door(SOURCE, message_key=("user_id",))


def maker(*, producer: int = 0, seed: int = 0, bad_share: float = 0.0) -> EventMaker:
    return EventMaker(seed=seed, producer=producer, producers=3, users=10, bad_share=bad_share)


def test_the_same_seed_makes_the_same_events() -> None:
    one, same, other = maker(), maker(), maker(seed=1)

    events = [one.event(NOW) for _ in range(100)]

    assert events == [same.event(NOW) for _ in range(100)]
    assert events != [other.event(NOW) for _ in range(100)]


def test_each_user_belongs_to_one_producer() -> None:
    makers = [maker(producer=number) for number in range(3)]

    users = [{one.event(NOW)[0] for _ in range(500)} for one in makers]

    assert sorted(user for of_one in users for user in of_one) == list(range(1, 11))


@pytest.mark.parametrize("bad_share", [0.0, 0.5, 1.0])
def test_good_events_are_let_in_and_bad_ones_are_not(bad_share: float) -> None:
    made = [maker(bad_share=bad_share).event(NOW) for _ in range(1)] + [
        event for one in [maker(bad_share=bad_share, seed=5)] for event in (one.event(NOW) for _ in range(1_000))
    ]

    decoded = JsonDecoder(DOOR).decode(
        [record.encode() for _, record, _ in made], range(len(made)), NOW, [str(user).encode() for user, _, _ in made]
    )

    good = [index for index, (_, _, is_good) in enumerate(made) if is_good]
    assert decoded.rows["sequence"].to_pylist() == good
    assert len(good) == pytest.approx(len(made) * (1 - bad_share), abs=80)
    actions, amounts = decoded.rows["action"].to_pylist(), decoded.rows["amount"].to_pylist()
    assert all((amount is not None) == (action == "purchase") for action, amount in zip(actions, amounts, strict=True))
