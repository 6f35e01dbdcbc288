"""Dagster's state stays small and true."""

from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from featurestore_dagster import maintenance
from featurestore_dagster.maintenance import FinishedRun, purge_job, superfluous

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


def test_purge_deletes_runs_events_checks_and_logs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maintenance, "KEEP_RUNS", 2)
    monkeypatch.setattr(maintenance.superfluous, "__kwdefaults__", {"keep": 2})
    monkeypatch.setattr(maintenance, "KEEP_RUNLESS_DAYS", -1)

    @dg.asset(check_specs=[dg.AssetCheckSpec("fine", asset="counted")])
    def counted() -> dg.MaterializeResult:
        return dg.MaterializeResult(check_results=[dg.AssetCheckResult(check_name="fine", passed=True)])

    with dg.instance_for_test() as instance:
        for _ in range(5):
            assert dg.materialize([counted], instance=instance).success
        instance.report_runless_asset_event(dg.AssetMaterialization("outside"))
        assert purge_job.execute_in_process(instance=instance).success
        kept = instance.get_runs()
        assert [run.job_name for run in kept].count("purge") == 1
        assert len(kept) == 3
        assert len(instance.fetch_materializations(dg.AssetKey("counted"), limit=10).records) == 2
        assert len(instance.fetch_materializations(dg.AssetKey("outside"), limit=10).records) == 0
        check = dg.AssetCheckKey(dg.AssetKey("counted"), "fine")
        assert len(instance.event_log_storage.get_asset_check_execution_history(check, limit=9)) == 1
