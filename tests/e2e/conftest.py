"""A small platform for the tests that look at one from outside."""

import secrets
from collections.abc import Iterator

import pytest

from tests.e2e.platform import Platform


@pytest.fixture(scope="session")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """With secrets of its own and a run a second; started once, whatever a test leaves running is stopped."""
    given = {
        "GRPC_TOKEN": secrets.token_hex(16),
        "SERVER_TOKEN": secrets.token_hex(16),
        "DAGSTER_ALERT_WEBHOOK": f"http://127.0.0.1:9/{secrets.token_hex(16)}",
        "DAGSTER_RUN_INTERVAL_S": 1,
    }
    with Platform(tmp_path_factory.mktemp("watched") / "data", given).running() as platform:
        yield platform
