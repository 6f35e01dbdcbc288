"""When `up -d` gives up waiting."""

from datetime import timedelta

from featurestore_cli.stack.detach import hopeless
from featurestore_cli.stack.state import PlatformState, ProcessState, now


def state(*processes: ProcessState) -> PlatformState:
    return PlatformState(pid=1, started_at=now(), ready=False, dagster_url="", processes=processes)


def test_who_fails_again_and_again_or_stays_silent_is_hopeless() -> None:
    long_ago = now() - timedelta(minutes=5)
    failing = ProcessState(name="kafka", state="restarting", since=now(), restarts=3)
    silent = ProcessState(name="redis", state="not ready", since=long_ago)
    assert hopeless(state(failing, silent)) == [failing, silent]


def test_who_is_slow_or_has_stumbled_is_not() -> None:
    long_ago = now() - timedelta(minutes=5)
    slow = ProcessState(name="azurite", state="starting", since=long_ago)
    stumbled = ProcessState(name="generator", state="restarting", since=now(), restarts=2)
    moment = ProcessState(name="ingest-kafka", state="not ready", since=now())
    assert hopeless(state(slow, stumbled, moment)) == []
