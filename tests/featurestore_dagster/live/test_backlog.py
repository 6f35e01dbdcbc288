"""Thousands of batches that wait are worked off, and none is forgotten."""

from contextlib import closing
from pathlib import Path

import dagster as dg
import pytest

from featurestore.landing.zone import LandingZone
from featurestore.online.redis_store import RedisOnlineStore
from tests.featurestore_dagster.live.backlog import forgotten, landed
from tests.featurestore_dagster.live.platform import WITHIN_S, live_dagster
from tests.services import eventually

pytestmark = [pytest.mark.services, pytest.mark.slow, pytest.mark.soak]

BATCHES, ROWS = 2_000, 20
DRAINED_WITHIN_S = 1_800.0


def test_a_backlog_is_worked_off_though_the_daemon_is_killed_halfway(tmp_path: Path, redis_url: str) -> None:
    batches = landed(LandingZone(tmp_path / "data" / "landing"), BATCHES, ROWS)
    with live_dagster(tmp_path, redis_url) as live, closing(RedisOnlineStore(redis_url)) as online:
        eventually(lambda: len(live.applied()) > BATCHES / 4, DRAINED_WITHIN_S)
        live.program("dagster-daemon").kill()
        eventually(lambda: live.children["dagster-daemon"].exit_code() is not None, WITHIN_S)
        assert forgotten(live, online, batches)  # so it was halfway: the control of what is asserted at the end
        live.start(live.children["dagster-daemon"].program)
        live.settle(*batches, within_s=DRAINED_WITHIN_S)
        assert not forgotten(live, online, batches)
        assert {run.status for run in live.instance.get_runs()} <= {
            dg.DagsterRunStatus.SUCCESS,
            dg.DagsterRunStatus.FAILURE,  # what the daemon was about to start when it was killed
        }
