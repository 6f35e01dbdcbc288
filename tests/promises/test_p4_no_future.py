"""P4: no training row sees the future, and with known_at="row" none that was landed later.

The negative controls break the kernel in the ways such kernels are broken; the user's own leakage test has to notice.
"""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest

import featurestore as fs
from featurestore.testing.leakage import assert_no_leakage
from featurestore.training import kernel
from featurestore.training.timeline import Bounds, Timeline

NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)
HOUR, MICROSECOND = timedelta(hours=1), timedelta(microseconds=1)

USER = fs.Entity("user", key="user_id")
EVENTS = fs.KafkaSource("events", timestamp="at", schema={"user_id": int, "action": str, "amount": float})
ROWS = fs.FeatureView("last", USER, EVENTS, [fs.Feature("last_amount", float, "amount")])
WINDOWS = fs.FeatureView(
    "activity",
    USER,
    EVENTS,
    [
        fs.Aggregation("clicks", "count", where="action = 'click'", windows=("1h", "7d")),
        fs.Aggregation("spend", "sum", "amount", windows=("1d",)),
    ],
)
RATIO = fs.DerivedView(
    "ratio", [WINDOWS["clicks_1h"], WINDOWS["clicks_7d"]], [fs.Feature("r", float, "clicks_1h / clicks_7d")]
)
PROJECT = fs.Project((ROWS, WINDOWS, RATIO))

RECORDS: list[dict[str, Any]] = [
    {"user_id": 1, "at": NOW - n * HOUR, "action": "click", "amount": float(n)} for n in range(24)
]
# The second row's time is a microsecond before a record's, the third's is a record's: equal counts, later does not.
SPINE = pl.DataFrame(
    {
        "user_id": [1, 1, 1, 2],
        "shop": ["a", "b", "c", "d"],  # polars exports text in a layout that Arrow cannot take rows of
        "event_timestamp": [NOW - HOUR / 2, NOW - 9 * HOUR - MICROSECOND, NOW - 5 * HOUR, NOW],
    }
)


@pytest.fixture(params=[ROWS, WINDOWS, RATIO], ids=lambda view: view.name)
def view(request: pytest.FixtureRequest) -> fs.FeatureView | fs.DerivedView:
    return request.param


def check(view: fs.FeatureView | fs.DerivedView) -> None:
    assert_no_leakage(PROJECT, [view], spine=SPINE, source=EVENTS, records=RECORDS)


def test_no_row_sees_the_future(view: fs.FeatureView | fs.DerivedView) -> None:
    check(view)


def test_a_spine_that_meets_no_record_proves_nothing() -> None:
    strangers = SPINE.with_columns(user_id=pl.lit(3))
    with pytest.raises(AssertionError, match="nothing was tested"):
        assert_no_leakage(PROJECT, [ROWS], spine=strangers, source=EVENTS, records=RECORDS)


def without_the_time_condition(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Bounds, "hold", lambda self, codes, times_us, log: codes >= 0)
    _read_at(monkeypatch, lambda times_us: np.full_like(times_us, 2**52))


def one_microsecond_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Bounds, "hold", lambda self, codes, times_us, log: codes >= 0)
    _read_at(monkeypatch, lambda times_us: times_us + 1)


def created_at_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "Timeline", lambda *args, delay_us: Timeline(*args, delay_us=None))


def _read_at(monkeypatch: pytest.MonkeyPatch, shifted: Callable[[Any], Any]) -> None:
    for name in ("until", "newest"):
        true = getattr(Timeline, name)
        monkeypatch.setattr(Timeline, name, lambda self, m, true=true: true(self, m.at(shifted(m.times_us))))


@pytest.mark.parametrize("mutate", [without_the_time_condition, one_microsecond_ahead, created_at_ignored])
def test_a_kernel_that_leaks_is_caught(
    view: fs.FeatureView | fs.DerivedView,
    mutate: Callable[[pytest.MonkeyPatch], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mutate(monkeypatch)
    with pytest.raises(AssertionError, match="sees what comes after it"):
        check(view)
