"""What is wrong with this platform, and what to do about it."""

import importlib.util
import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

from featurestore.definitions.project import load_project
from featurestore.environment import PREFIX
from featurestore.errors import DefinitionError, FeatureStoreError, SettingsError
from featurestore.landing.zone import LandingZone
from featurestore.settings import Settings
from featurestore_cli.stack import azurite, kafka, redis
from featurestore_cli.stack.dagster import DEFAULT_PORT as DAGSTER_PORT
from featurestore_cli.stack.downloads import cache_dir
from featurestore_cli.stack.plan import INGEST_GRPC, SERVER_GRPC, SERVER_HTTP, USUAL_PORTS
from featurestore_cli.stack.ports import describe_listener, is_free, listener
from featurestore_cli.stack.provision import BROKERS, CONNECTION_STRING, REDIS_URL, reachable
from featurestore_cli.stack.runtimes import EXTRA, MissingProgramError, find_java, find_node, find_redis_server
from featurestore_cli.stack.service import last_lines, port_of
from featurestore_cli.stack.state import Home, ProcessState, now

PYTHON = (3, 11)
LOW_BYTES = 2 * 2**30  # of free disk
PATIENCE_S = 15.0  # for a process that is starting
DEFAULT_PORTS = {
    "Kafka": kafka.DEFAULT_PORT,
    "Redis": redis.DEFAULT_PORT,
    "Azurite": azurite.DEFAULT_PORT,
    "Dagster": DAGSTER_PORT,
    "uploads": USUAL_PORTS[INGEST_GRPC],
    "features over HTTP": USUAL_PORTS[SERVER_HTTP],
    "features over gRPC": USUAL_PORTS[SERVER_GRPC],
}


@dataclass(frozen=True, slots=True)
class Finding:
    """Something to know, and what to do about it."""

    what: str
    advice: str
    wrong: bool = True  # False: `up` gets along with it


@dataclass(frozen=True, slots=True)
class Patient:
    """What is examined; nothing of it is changed."""

    home: Home
    settings: Settings
    environ: Mapping[str, str]

    def set_by_user(self, name: str) -> bool:
        return f"{PREFIX}{name}" in self.environ or f"{PREFIX}{name}_FILE" in self.environ


def examine(patient: Patient) -> list[Finding]:
    """Look at everything, the most basic first."""
    checks = [_python, _programs, _directory, _disk, _landing, _definitions, _leftovers, _addresses]
    checks += [_processes] if patient.home.running() else [_not_running, _ports]
    return [finding for check in checks for finding in check(patient)]


def _python(patient: Patient) -> Iterator[Finding]:
    if sys.version_info < PYTHON:
        wanted = ".".join(map(str, PYTHON))
        yield Finding(f"this is Python {sys.version.split()[0]}", f"use Python {wanted} or newer")


def _programs(patient: Patient) -> Iterator[Finding]:
    """Those that `up` would start; where the user names a running service, none is needed."""
    needed = [
        *([find_java] if not patient.set_by_user(BROKERS) else []),
        *([find_node] if not patient.set_by_user(CONNECTION_STRING) else []),
        *([find_redis_server] if not patient.set_by_user(REDIS_URL) else []),
    ]
    for find in needed:
        try:
            find(patient.environ)
        except MissingProgramError as error:
            yield Finding(f"{error.what} is missing", error.advice)
    fetches = not patient.set_by_user(BROKERS) and not patient.environ.get("KAFKA_HOME")
    if fetches and not (cache_dir(patient.environ) / "maven").exists() and not importlib.util.find_spec("jgo"):
        yield Finding("jgo, which fetches Apache Kafka, is missing", f"`{EXTRA}`, or set KAFKA_HOME")


def _directory(patient: Patient) -> Iterator[Finding]:
    path = patient.home.path
    above = next(one for one in (path, *path.parents) if one.exists())
    if not os.access(above, os.W_OK | os.X_OK):
        yield Finding(f"{above} cannot be written", f"make it yours, or set {PREFIX}DATA_DIR to another directory")
    if path.exists() and path.stat().st_mode & 0o077:
        yield Finding(f"others can look into {path}, where passwords are kept", f"`chmod 700 {path}`")


def _disk(patient: Patient) -> Iterator[Finding]:
    path = patient.home.path
    free = shutil.disk_usage(next(one for one in (path, *path.parents) if one.exists())).free
    left, reserve = f"{free / 2**30:.1f} GiB", patient.settings.ingest.disk_reserve_bytes
    if free < reserve:
        yield Finding(
            f"the disk of {path} is full ({left} left): nothing is landed below {reserve / 2**20:.0f} MiB",
            "make room; intake goes on by itself",
        )
    elif free < LOW_BYTES:
        yield Finding(f"the disk of {path} is nearly full ({left} left)", "make room")


def _landing(patient: Patient) -> Iterator[Finding]:
    try:
        zone = LandingZone.of(patient.settings)
        zone.batches()
    except FeatureStoreError as error:
        yield Finding(f"the landing zone cannot be read: {error}", "see what it says")
        return
    for alarm in zone.alarms():
        yield Finding(alarm, "restore that file from a backup; until then, what landed after it waits")


def _definitions(patient: Patient) -> Iterator[Finding]:
    try:
        load_project(patient.settings.project)
    except (DefinitionError, SettingsError) as error:
        yield Finding(f"the definitions cannot be loaded: {error}", "correct them")


def _leftovers(patient: Patient) -> Iterator[Finding]:
    if patient.home.running() or not patient.home.leftovers():
        return
    found = [process.pid for process in psutil.process_iter() if _is_leash(process, patient.home.logs)]
    yield Finding(
        "programs of an `up` that was killed are still there",
        f"wait a moment; if they stay: `kill -9 {' '.join(map(str, found))}`",
    )


def _addresses(patient: Patient) -> Iterator[Finding]:
    """Services that the user named."""
    settings = patient.settings
    endpoint = azurite.endpoint(settings.azure.connection_string)
    named = (
        (BROKERS, settings.kafka.brokers, lambda: kafka.listens_at(settings.kafka.brokers)),
        (REDIS_URL, "it", lambda: redis.answers(settings.redis.url)),  # the URL may hold a password
        (CONNECTION_STRING, endpoint, lambda: reachable(endpoint)),
    )
    for name, address, answers in named:
        if patient.set_by_user(name) and not answers():
            yield Finding(
                f"{PREFIX}{name}: {address} does not answer", "start that service, correct the setting or unset it"
            )


def _not_running(patient: Patient) -> Iterator[Finding]:
    yield Finding("the platform is not running", "`featurestore up`")


def _ports(patient: Patient) -> Iterator[Finding]:
    for name, port in DEFAULT_PORTS.items():
        if not is_free(port):
            yield Finding(
                f"port {port}, the usual one for {name}, is taken by {describe_listener(port)}",
                "nothing: `up` leaves it alone and takes another port",
                wrong=False,
            )


def _processes(patient: Patient) -> Iterator[Finding]:
    state = patient.home.state()
    for process in state.processes if state else ():
        starting_s = (now() - process.since).total_seconds() if process.state in {"starting", "waiting"} else 0.0
        if process.state in {"not ready", "restarting"} or starting_s > PATIENCE_S:
            yield Finding(f"{process.name} is {process.state}{_detail(patient.home, process)}", _advice(process))


def _detail(home: Home, process: ProcessState) -> str:
    note = process.note or next(reversed(last_lines(home.logs / f"{process.name}.log", 1)), "")
    return f": {note}" if note else ""


def _advice(process: ProcessState) -> str:
    port = port_of(process.address)
    ours = process.pid or process.state == "restarting"  # and not a service that is only looked at
    if port and ours and not is_free(port) and not _belongs(port, process.pid):
        owner = describe_listener(port)
        return f"port {port} is taken by {owner}: end that, or `featurestore down` and `up`, which takes another"
    return f"`featurestore logs {process.name}` says more; it is tried again and again"


def _belongs(port: int, leash: int) -> bool:
    process = listener(port)
    return process is not None and leash in {one.pid for one in process.parents()}


def _is_leash(process: psutil.Process, logs: Path) -> bool:
    try:
        return any(word.startswith(f"{logs}/") for word in process.cmdline()[:9])
    except psutil.Error:
        return False
