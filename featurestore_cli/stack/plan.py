"""What the platform consists of: which programs, what each waits for, and which go first when it stops."""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from threading import Thread

from featurestore.environment import PREFIX
from featurestore.errors import FeatureStoreError
from featurestore.settings import Settings
from featurestore_cli.stack import prometheus
from featurestore_cli.stack.dagster import Dagster, plan_dagster
from featurestore_cli.stack.ports import Ports
from featurestore_cli.stack.provision import Provided, Site, provide_azurite, provide_kafka, provide_redis
from featurestore_cli.stack.service import Program, Say, port_of
from featurestore_cli.stack.state import Home, PlatformState
from featurestore_cli.stack.unit import CODE, DATABASE, GENERATOR, INGEST, RUNS, SERVICES, Unit, read_health

# Where our own servers listen, unless it is set: the variable, and the port if it is free.
INGEST_GRPC, SERVER_HTTP, SERVER_GRPC = "GRPC_ADDRESS", "SERVER_ADDRESS", "SERVER_GRPC_ADDRESS"
USUAL_PORTS = {INGEST_GRPC: 50051, SERVER_HTTP: 8080, SERVER_GRPC: 50052}
FED = ("ingest-kafka", "ingest-grpc")  # by the generator
EXAMPLE_DONE = "example-pushed"  # a file beside Azurite's data


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The whole platform."""

    units: tuple[Unit, ...]
    addresses: Mapping[str, str] = field(repr=False)  # for platform.env
    env: Mapping[str, str] = field(repr=False)  # of every program
    dagster_url: str
    ports: Ports = field(repr=False)  # held as long as this lives


def plan_platform(
    home: Home, settings: Settings, environ: Mapping[str, str], *, platform_id: str, generator: bool | None, say: Say
) -> Plan:
    """Find or choose everything and fetch what is missing; nothing is started yet.

    With `generator=None` the generator feeds a Kafka that is ours only.

    Raises:
        MissingProgramError, DownloadError, NotStartedError, TerminalError
    """
    site = Site(
        data_dir=home.path,
        logs=home.logs,
        platform_id=platform_id,
        environ=environ,
        previous=home.addresses(),
        settings=settings,
        say=say,
    )
    redis, kafka, azurite = _at_once(site, provide_redis, provide_kafka, provide_azurite)
    before = _ports(home.state())
    dagster = plan_dagster(
        home.path / "dagster", Path.cwd(), previous_port=before.get("dagster-web", 0), ports=site.ports
    )
    chosen = {name: _address(site, name) for name in USUAL_PORTS if not site.set_by_user(name)}
    grpc = chosen.get(INGEST_GRPC, settings.grpc.address)
    http = chosen.get(SERVER_HTTP, settings.server.address)
    daemon = partial(_daemon, site.ports, before)
    is_example = settings.project == Settings().project  # the generator makes what this one's sources declare
    feeds = kafka.started and is_example if generator is None else generator
    processes = (
        *(_service(one) for one in (redis, kafka, azurite)),
        _job("kafka-topics", "topics", *([platform_id] if kafka.started else []), after=("kafka",)),
        *_example(home, azurite, platform_id),
        daemon("database", 9465, run="database", after=("redis",), wave=DATABASE),
        daemon("ingest-kafka", 9466, run="kafka", after=("kafka-topics",), wave=INGEST),
        daemon("ingest-grpc", 9467, run="grpc", after=(), wave=INGEST, address=grpc),
        daemon("server", 9470, run="server", after=("database",), wave=INGEST, address=http),
        *_dagster(dagster),
        daemon("exporter", 9469, run="exporter", after=("dagster-daemon", "database"), wave=RUNS),
        *([daemon("generator", 9468, run="generator", after=FED, wave=GENERATOR, may_end=True)] if feeds else []),
    )
    port = before.get(prometheus.NAME, 0)
    watch = prometheus.plan_prometheus(
        home.path / "prometheus", processes, environ, previous_port=port, ports=site.ports
    )
    return Plan(
        units=(*processes, *watch),
        addresses={
            **redis.env,
            **kafka.env,
            **azurite.env,
            **{f"{PREFIX}{name}": address for name, address in chosen.items()},
        },
        env={
            **environ,
            f"{PREFIX}DATA_DIR": str(home.path),
            f"{PREFIX}PROJECT": settings.project,
            f"{PREFIX}METRICS_PORT": "0",
            "DAGSTER_HOME": str(dagster.home),
            "DAGSTER_DISABLE_TELEMETRY": "yes",
            "PYTHONUNBUFFERED": "1",
        },
        dagster_url=dagster.url,
        ports=site.ports,
    )


def _at_once(site: Site, *provide: Callable[[Site], Provided]) -> list[Provided]:
    """Call them side by side. The first error is raised at once: nobody waits for a download that is of no use."""
    answers: SimpleQueue[tuple[int, Provided | Exception]] = SimpleQueue()

    def call(number: int) -> None:
        answer: Provided | Exception = RuntimeError(f"{provide[number].__name__} failed")  # its thread shows why
        try:
            answer = provide[number](site)
        except (FeatureStoreError, OSError) as error:
            answer = error
        finally:
            answers.put((number, answer))

    for number in range(len(provide)):
        Thread(target=call, args=(number,), name=provide[number].__name__, daemon=True).start()
    found: dict[int, Provided] = {}
    while len(found) < len(provide):
        number, answer = answers.get()
        if not isinstance(answer, Provided):
            raise answer
        found[number] = answer
    return [found[number] for number in range(len(provide))]


def _service(found: Provided) -> Unit:
    return Unit(program=found.program, started=found.started, note=found.note, when_ready=found.when_ready)


def _job(name: str, *arguments: str, after: tuple[str, ...], wave: int = SERVICES) -> Unit:
    command = (sys.executable, "-m", "featurestore_cli.stack.jobs", *arguments)
    return Unit(program=Program(name=name, command=command, answers=lambda: False), after=after, once=True, wave=wave)


def _example(home: Home, azurite: Provided, platform_id: str) -> list[Unit]:
    """The example model, once, and only into an Azurite of ours."""
    done = home.path / "azurite" / EXAMPLE_DONE
    if done.exists() or not azurite.started:
        return []
    return [_job("example-model", "example", platform_id, str(done), after=("azurite",))]


def _daemon(
    ports: Ports,
    before: Mapping[str, int],
    name: str,
    port: int,
    *,
    run: str,
    after: tuple[str, ...],
    wave: int,
    address: str = "",
    may_end: bool = False,
) -> Unit:
    """A process of our own: `featurestore run NAME`, with a port for its health and metrics."""
    port = ports.take(before.get(name, 0), port)
    program = Program(
        name=name,
        command=(sys.executable, "-m", "featurestore_cli.main", "run", run),
        env={f"{PREFIX}METRICS_PORT": str(port)},
        answers=lambda: read_health(port)[0],
        address=address,
        ports=(port, *([port_of(address)] if address else [])),
        stop_within_s=20.0,
    )
    return Unit(program=program, after=after, wave=wave, metrics_port=port, may_end=may_end)


def _dagster(dagster: Dagster) -> list[Unit]:
    init = [Unit(program=dagster.init(), once=True, when_ready=dagster.initialised)] if dagster.prepare() else []
    made = tuple(unit.name for unit in init)  # before anything opens it: two that make it get in each other's way
    code = [Unit(program=server.program(dagster.project), after=made, wave=CODE) for server in dagster.code_servers]
    ready = tuple(unit.name for unit in (*init, *code))
    return [
        *init,
        *code,
        Unit(program=dagster.webserver(), after=ready, wave=CODE),
        Unit(program=dagster.daemon(), after=(*ready, "database"), wave=RUNS),
    ]


def _ports(state: PlatformState | None) -> dict[str, int]:
    """Where the processes of the last time were, so that they are found there again."""
    processes = state.processes if state else ()
    return {one.name: one.metrics_port or port_of(one.address) for one in processes}


def _address(site: Site, name: str) -> str:
    return f"127.0.0.1:{site.ports.take(port_of(site.before(name)), USUAL_PORTS[name])}"
