"""Which runs may go; what is left of them then stands in test_long_history.py."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from featurestore_dagster.maintenance import FinishedRun, superfluous

NOW = datetime(2026, 11, 22, tzinfo=UTC)


def finished(number: int, work: str = "", days: float = 0) -> FinishedRun:
    return FinishedRun(str(number), work, NOW - timedelta(days=days))


def test_the_newest_runs_stay_and_the_last_of_each_work() -> None:
    runs = [
        finished(1, "a"),
        finished(2, "b"),
        finished(3, "a"),
        finished(4),
        finished(5, "c"),
        finished(6, "c", days=31),
    ]
    assert list(superfluous(runs, NOW, keep=2)) == ["3", "4", "6"]
    assert list(superfluous(runs, NOW, keep=6)) == []
    assert list(superfluous([finished(1, "a", days=31)], NOW, keep=0)) == ["1"]


@given(st.lists(st.sampled_from("abc"), max_size=50), st.integers(0, 10))
def test_of_each_work_one_run_stays(works: list[str], keep: int) -> None:
    runs = [finished(number, work) for number, work in enumerate(works)]
    gone = set(superfluous(runs, NOW, keep=keep))
    assert {run.work for run in runs if run.run_id not in gone} == set(works)
    assert len(runs) - len(gone) <= keep + len(set(works))
