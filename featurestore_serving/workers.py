"""Several processes behind one port: one that starts them and watches, and those that answer."""

import logging
import multiprocessing
import os
import socket
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import cast

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from featurestore.definitions.project import load_project
from featurestore.errors import TerminalError
from featurestore.process import logs
from featurestore.process.daemon import Daemon, run_until_signalled
from featurestore.process.health import Health
from featurestore.settings import Settings
from featurestore_serving.grpc_api import GRACE_S
from featurestore_serving.http_server import listen
from featurestore_serving.server import PROBE_S, FeatureServer, check_settings

log = logging.getLogger(__name__)

METRICS_DIR = "PROMETHEUS_MULTIPROC_DIR"  # where the workers count, so that each can show the sum of all


class Workers:
    """Starts the workers and keeps them running; see `featurestore.process.daemon.Service`."""

    def __init__(self, settings: Settings, *, health: Health, registry: CollectorRegistry) -> None:
        self._settings, self._health, self._registry = settings, health, registry
        self._open = ExitStack()
        self._workers: list[_Worker] = []
        self.port = self.grpc_port = 0

    def start(self) -> None:
        server = self._settings.server
        check_settings(server)
        listener = self._open.enter_context(listen(server.address))
        self.port = listener.getsockname()[1]
        if server.grpc_address:
            place = self._open.enter_context(_reserved(server.grpc_address))
            host, self.grpc_port = server.grpc_address.rpartition(":")[0], place.getsockname()[1]
            server = replace(server, grpc_address=f"{host}:{self.grpc_port}")
        counted = self._open.enter_context(tempfile.TemporaryDirectory(prefix="featurestore-server-"))
        os.environ[METRICS_DIR] = counted  # noqa: TID251  # of the workers; the library looks there when it is imported
        MultiProcessCollector(self._registry, counted)  # pyright: ignore[reportArgumentType]  # the path is a text
        for number in range(server.workers):
            self._workers.append(_Worker(number, replace(self._settings, server=server), listener, counted))
            self._workers[-1].start()
        log.info("listening at %s, gRPC at %s, %d workers", server.address, server.grpc_address or "–", server.workers)

    def step(self) -> bool:
        """Start again who has ended; ready when all are."""
        for worker in self._workers:
            worker.look()
        waiting = [worker for worker in self._workers if worker.state != "ready"]
        if waiting:
            self._health.not_ready(f"worker {waiting[0].number} is {waiting[0].state}: {waiting[0].note}")
        else:
            self._health.ready(f"{len(self._workers)} workers")
        return False

    def drain(self) -> None:
        self._health.not_ready("stopping")
        for worker in self._workers:
            worker.end()
        for worker in self._workers:
            worker.wait(self._settings.server.drain_s + 2 * GRACE_S)

    def stop(self) -> None:
        for worker in self._workers:
            worker.kill()
        self._open.close()


@dataclass(slots=True)
class _Worker:
    """One process."""

    number: int
    settings: Settings
    listener: socket.socket
    counted: str
    state: str = "starting"
    note: str = ""
    was_ready: bool = False
    process: BaseProcess | None = field(default=None)
    report: Connection | None = field(default=None)

    def start(self) -> None:
        context = multiprocessing.get_context("spawn")
        report, theirs = context.Pipe(duplex=False)
        self.report = cast("Connection", report)  # the stubs mean the one of another system
        arguments = (self.settings, self.listener, self.counted, theirs)
        self.process = context.Process(target=work, args=arguments, name=f"server-{self.number}", daemon=True)
        self.process.start()
        theirs.close()

    def look(self) -> None:
        """Take in what it reported; start it again if it has ended.

        Raises:
            TerminalError: it never got ready, so it would end again.
        """
        assert self.process is not None
        assert self.report is not None
        try:
            while self.report.poll():
                self.state, self.note = self.report.recv()
                self.was_ready |= self.state == "ready"
        except (EOFError, OSError):
            log.debug("worker %d has closed its report", self.number)
        if self.process.is_alive():
            return
        if not self.was_ready:
            raise TerminalError(f"worker {self.number} ended with exit code {self.process.exitcode}; its log says why")
        log.error("worker %d ended with exit code %s; starting it again", self.number, self.process.exitcode)
        self.report.close()
        self.state, self.note, self.was_ready = "starting", "", False
        self.start()

    def end(self) -> None:
        if self.process is not None and self.process.is_alive():
            self.process.terminate()

    def wait(self, timeout_s: float) -> None:
        if self.process is not None:
            self.process.join(timeout_s)

    def kill(self) -> None:
        if self.process is not None and self.process.is_alive():
            self.process.kill()
            self.process.join(5)


class _Reporting(Health):
    """Tells the process that started this one about each change."""

    def __init__(self, report: Connection) -> None:
        super().__init__()
        self._report = report

    def _set(self, state: str, note: str) -> None:
        changed = self.snapshot() != (state, note)
        super()._set(state, note)
        if changed:
            try:
                self._report.send((state, note))
            except OSError:
                log.debug("nobody hears the report")


class _Child(FeatureServer):
    """A server that ends with the process that started it, however that ends."""

    def step(self) -> bool:
        parent = multiprocessing.parent_process()
        if parent is not None and not parent.is_alive():
            raise TerminalError("the process that started this worker has ended")
        return super().step()


def work(settings: Settings, listener: socket.socket, counted: str, report: Connection) -> None:
    """The life of a worker."""
    os.setpgid(0, 0)  # Ctrl-C is for the process that started this one, which passes it on once
    logs.configure(settings.log_level, settings.log_format)
    registry, health = CollectorRegistry(), _Reporting(report)
    sums = CollectorRegistry()
    MultiProcessCollector(sums, counted)  # pyright: ignore[reportArgumentType]  # the path is a text
    service = _Child(
        settings,
        load_project(settings.project),
        health=health,
        registry=registry,
        listener=listener,
        scrape=lambda: generate_latest(sums),
    )
    code = run_until_signalled(Daemon(service, health=health, idle_s=PROBE_S))
    raise SystemExit(code)


def _reserved(address: str) -> socket.socket:
    """A socket that holds the port for the workers, who share it; it takes no connections itself."""
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    place = socket.socket(family, socket.SOCK_STREAM)
    try:
        with socket.socket(family, socket.SOCK_STREAM) as alone:  # finds out whether a stranger has it
            alone.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            alone.bind((host, int(port)))
        place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        place.bind((host, int(port)))
    except (OSError, ValueError) as error:
        place.close()
        raise TerminalError(f"cannot listen at {address}: {error}") from error
    return place
