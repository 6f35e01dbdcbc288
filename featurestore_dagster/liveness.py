"""Whether the processes of runs are alive.

Dagster does not see it: its stock launcher cannot tell, and a run of `dagster asset materialize` has none. A run whose
process was killed would stay started, and hold its lane and its places in the pools, for hours.
"""

from collections.abc import Iterator

import dagster as dg
import psutil

EARLIER_S = 60.0  # by so much the record of a run's start may be behind the start of its process


class RunProcesses:
    """Finds started runs whose process is no more; remembers what it has read, so keep it. Not thread-safe.

    A process is known by the id that the run wrote of it, so only runs of this machine are looked at: those of the
    stock launcher and of the command line.
    """

    def __init__(self) -> None:
        self._pids: dict[str, frozenset[int]] = {}

    def dead(self, instance: dg.DagsterInstance) -> list[dg.DagsterRun]:
        """The runs whose process is dead."""
        if not isinstance(instance.run_launcher, dg.DefaultRunLauncher):
            return []
        records = instance.get_run_records(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED]))
        self._pids = {
            record.dagster_run.run_id: self._pids.get(record.dagster_run.run_id) or _pids(instance, record.dagster_run)
            for record in records
        }
        return [record.dagster_run for record in records if self._is_dead(record)]

    def fail_dead(self, instance: dg.DagsterInstance) -> list[str]:
        """Fail them; return their ids. Their batches wait again, and are run again."""
        dead = self.dead(instance)
        for run in dead:
            instance.report_run_failed(run, "The process of this run is dead.")
        return [run.run_id for run in dead]

    def _is_dead(self, record: dg.RunRecord) -> bool:
        pids = self._pids[record.dagster_run.run_id]
        return bool(pids) and not any(_is_alive(pid, record.start_time) for pid in pids)


def _pids(instance: dg.DagsterInstance, run: dg.DagsterRun) -> frozenset[int]:
    """The processes that the run says it has; none in its first moment."""
    return frozenset(_pids_said(instance, run.run_id))


def _pids_said(instance: dg.DagsterInstance, run_id: str) -> Iterator[int]:
    for entry in instance.all_logs(run_id, of_type=dg.DagsterEventType.ENGINE_EVENT):
        data = entry.dagster_event.engine_event_data if entry.dagster_event else None
        value = data.metadata.get("pid") if data else None
        if value is not None and str(value.value).isdigit():
            yield int(str(value.value))


def _is_alive(pid: int, run_started: float | None) -> bool:
    """Whether this process runs, and is not another one that got the same id later."""
    try:
        process = psutil.Process(pid)
        is_older = run_started is None or process.create_time() < run_started + EARLIER_S
        return is_older and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
