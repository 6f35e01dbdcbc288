"""The one loop: what it calls, in which order, and how a process ends."""

import json
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import urllib.error
import urllib.request

import pytest
from prometheus_client import CollectorRegistry, Counter

from featurestore.errors import StoreUnavailableError, TerminalError
from featurestore.process.daemon import Daemon
from featurestore.process.health import Health
from featurestore.process.metrics import serve


class Recorder:
    """A service that notes its calls; `fails` are raised by the next steps, in order."""

    def __init__(self, *fails: Exception | None, steps: int = 3) -> None:
        self.calls: list[str] = []
        self._fails = list(fails)
        self._steps = steps
        self.daemon: Daemon | None = None

    def start(self) -> None:
        self.calls.append("start")

    def step(self) -> bool:
        self.calls.append("step")
        if self._fails and (error := self._fails.pop(0)) is not None:
            raise error
        if self.calls.count("step") >= self._steps and self.daemon:
            self.daemon.request_stop()
        return True

    def drain(self) -> None:
        self.calls.append("drain")

    def stop(self) -> None:
        self.calls.append("stop")


def run(service: Recorder, health: Health) -> None:
    service.daemon = Daemon(service, health=health, longest_retry_s=0.01)
    thread = threading.Thread(target=service.daemon.run)
    thread.start()
    thread.join(20)
    assert not thread.is_alive()


def test_a_service_starts_steps_drains_and_stops() -> None:
    service = Recorder()
    run(service, Health())
    assert service.calls == ["start", "step", "step", "step", "drain", "stop"]


def test_a_transient_error_is_tried_again_and_shown_as_not_ready() -> None:
    health = Health()
    service = Recorder(StoreUnavailableError("Redis", "127.0.0.1:1"))
    run(service, health)
    assert service.calls == ["start", "step", "step", "step", "drain", "stop"]
    assert health.state == "ready"


def test_another_error_ends_the_loop_without_draining() -> None:
    service = Recorder(TerminalError("no"))
    service.daemon = Daemon(service, health=Health())
    with pytest.raises(TerminalError):
        service.daemon.run()
    assert service.calls == ["start", "step", "stop"]


PROCESS = textwrap.dedent("""
    import sys, threading
    from featurestore.errors import TerminalError
    from featurestore.process.daemon import Daemon, run_until_signalled
    from featurestore.process.health import Health

    class Service:
        def start(self): print("started", flush=True)
        def step(self):
            if "fail" in sys.argv: raise TerminalError("it cannot work")
            if "hang" in sys.argv:
                print("hanging", flush=True)
                threading.Event().wait(60)
            threading.Event().wait(0.01)
            return True
        def drain(self): print("drained", flush=True)
        def stop(self): print("stopped", flush=True)

    drain_s = 1.0 if "bounded" in sys.argv else float("inf")
    sys.exit(run_until_signalled(Daemon(Service(), health=Health()), drain_s=drain_s))
""")


def started(*args: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", PROCESS, *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "started\n"
    return process


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_drains(number: signal.Signals) -> None:
    process = started()
    process.send_signal(number)
    out, _ = process.communicate(timeout=20)
    assert (process.returncode, out) == (0, "drained\nstopped\n")


def test_the_second_signal_leaves_at_once() -> None:
    process = started("hang")
    assert process.stdout
    assert process.stdout.readline() == "hanging\n"
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=20)
    assert (process.returncode, out) == (1, "")


def test_a_drain_that_takes_too_long_is_left() -> None:
    process = started("hang", "bounded")
    assert process.stdout
    assert process.stdout.readline() == "hanging\n"
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=40)
    assert (process.returncode, out) == (1, "")
    assert "not drained within 1 s" in err


def test_an_error_ends_the_process_with_one_line() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROCESS, "fail"], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (1, "started\nstopped\n", "it cannot work\n")


def test_metrics_and_health_are_served_on_loopback() -> None:
    registry, health = CollectorRegistry(), Health()
    Counter("fs_things", "Things.", registry=registry).inc()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        free = probe.getsockname()[1]
    with serve(free, registry, health) as port:

        def get(path: str) -> tuple[int, str]:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as reply:
                    return reply.status, reply.read().decode()
            except urllib.error.HTTPError as error:
                with error:
                    return error.code, error.read().decode()

        assert "fs_things_total 1.0" in get("/metrics")[1]
        assert get("/health")[0] == 503
        health.ready("all well")
        status, body = get("/health")
        assert (status, json.loads(body)) == (200, {"state": "ready", "note": "all well"})
        assert get("/else")[0] == 404
