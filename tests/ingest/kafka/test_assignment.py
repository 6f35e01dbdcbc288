"""Where reading starts."""

import pytest

from ingest.kafka.assignment import Behind, Start, plan_start


@pytest.mark.parametrize(
    ("tail", "low", "high", "from_end", "plan"),
    [
        (None, 0, 0, False, Start(0, gap_from=0)),
        (None, 0, 9, False, Start(0, gap_from=0)),
        (None, 4, 9, False, Start(4, gap_from=0)),
        (None, 0, 9, True, Start(9, gap_from=0)),
        (None, 4, 9, True, Start(9, gap_from=0)),
        (5, 0, 9, False, Start(5, gap_from=5)),
        (5, 5, 5, False, Start(5, gap_from=5)),
        (5, 7, 9, False, Start(7, gap_from=5)),
        (5, 9, 9, False, Start(9, gap_from=5)),
        (5, 0, 9, True, Start(5, gap_from=5)),
        (5, 0, 4, False, Behind(4, 5)),
        (5, 0, 0, True, Behind(0, 5)),
    ],
)
def test_reading_goes_on_at_the_tail_or_at_what_kafka_still_has(
    tail: int | None, low: int, high: int, from_end: bool, plan: Start | Behind
) -> None:
    assert plan_start(tail, low, high, from_end=from_end) == plan
