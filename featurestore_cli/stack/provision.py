"""Where Kafka, Redis and Azurite come from: an address that was set, one of ours that runs, or one that we start.

Never is anything written into a service that is not this platform's: what is found at a default address is used only if
it carries the marker of this data directory.
"""

import base64
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from featurestore.environment import PREFIX
from featurestore.settings import Settings
from featurestore_cli.stack import azurite, kafka, redis
from featurestore_cli.stack.ports import LOOPBACK, Ports
from featurestore_cli.stack.service import Program, Say, join_address, listens, port_of

OUTLIVE_S = 3.0  # for daemons to land what they hold and to leave their groups, when `up` itself was killed
BROKERS, REDIS_URL, CONNECTION_STRING = "KAFKA_BROKERS", "REDIS_URL", "AZURE_CONNECTION_STRING"


@dataclass(frozen=True, slots=True, kw_only=True)
class Defaults:
    """Where a service would be if somebody had started it in the usual way."""

    kafka: int = kafka.DEFAULT_PORT
    redis: int = redis.DEFAULT_PORT
    azurite: int = azurite.DEFAULT_PORT


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """What all three need to know."""

    data_dir: Path
    logs: Path
    platform_id: str
    environ: Mapping[str, str] = field(repr=False)  # of the user
    previous: Mapping[str, str] = field(repr=False)  # platform.env of the last time
    settings: Settings
    say: Say
    ports: Ports = field(default_factory=Ports)
    defaults: Defaults = Defaults()

    def set_by_user(self, name: str) -> bool:
        return f"{PREFIX}{name}" in self.environ or f"{PREFIX}{name}_FILE" in self.environ

    def before(self, name: str) -> str:
        return self.previous.get(f"{PREFIX}{name}", "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Provided:
    """A service of the platform."""

    program: Program  # for one that is not ours to start: without a command, only to see whether it answers
    started: bool
    env: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)  # for platform.env
    note: str = ""
    when_ready: Callable[[], None] | None = None  # leaves this platform's mark in one of ours


def provide_kafka(site: Site) -> Provided:
    """Kafka; its note says where it comes from."""
    if site.set_by_user(BROKERS):
        brokers = site.settings.kafka.brokers
        # Whoever set the address may have set how to get in as well: only the port is looked at.
        return _external("kafka", brokers, partial(kafka.listens_at, brokers), f"set by {PREFIX}{BROKERS}")
    before = site.before(BROKERS)
    usual = [join_address(host, site.defaults.kafka) for host in LOOPBACK]
    for brokers in [*([before] if before else []), *usual]:
        if kafka.marked(brokers, site.platform_id):
            return _found("kafka", BROKERS, brokers, partial(kafka.answers, brokers))
    ports = [int(address.rpartition(":")[2]) for address in before.split(",") if address]
    hosts = kafka.own_hosts()
    wanted = [*ports, *[0] * len(hosts)]
    broker = kafka.KafkaBroker(
        home=site.data_dir / "kafka",
        ports={host: site.ports.take(wanted[n], site.defaults.kafka + n) for n, host in enumerate(hosts)},
        controller_port=site.ports.take(),
    )
    return Provided(
        program=replace(broker.program(site.environ, site.say), outlive_s=OUTLIVE_S),
        started=True,
        env={f"{PREFIX}{BROKERS}": broker.brokers},
        note=_stranger(site.defaults.kafka),
    )


def provide_redis(site: Site) -> Provided:
    """Redis; its note says where it comes from."""
    if site.set_by_user(REDIS_URL):
        url = site.settings.redis.url
        return _external("redis", _without_password(url), partial(redis.answers, url), f"set by {PREFIX}{REDIS_URL}")
    before = site.before(REDIS_URL)
    usual = [f"redis://{join_address(host, site.defaults.redis)}/0" for host in LOOPBACK]
    for url in [*([before] if before else []), *usual]:
        if redis.marked(url, site.platform_id):
            return _found("redis", REDIS_URL, url, partial(redis.answers, url), _without_password(url))
    server = redis.RedisServer(
        home=site.data_dir / "redis",
        port=site.ports.take(port_of(before), site.defaults.redis),
        password=urlsplit(before).password or secrets.token_urlsafe(24),
    )
    return Provided(
        program=replace(server.program(site.environ), outlive_s=OUTLIVE_S),
        started=True,
        env={f"{PREFIX}{REDIS_URL}": server.url},
        note=_stranger(site.defaults.redis),
        when_ready=partial(redis.mark, server.url, site.platform_id),
    )


def provide_azurite(site: Site) -> Provided:
    """Azurite; its note says where it comes from."""
    if site.set_by_user(CONNECTION_STRING):
        endpoint = azurite.endpoint(site.settings.azure.connection_string)
        return _external("azure", endpoint, partial(reachable, endpoint), f"set by {PREFIX}{CONNECTION_STRING}")
    before = site.before(CONNECTION_STRING)
    usual = [azurite.well_known(host, site.defaults.azurite) for host in LOOPBACK]
    for connection_string in [*([before] if before else []), *usual]:
        endpoint = azurite.endpoint(connection_string)
        if reachable(endpoint) and azurite.marked(connection_string, site.platform_id):
            return _found("azurite", CONNECTION_STRING, connection_string, partial(reachable, endpoint), endpoint)
    server = azurite.AzuriteServer(
        home=site.data_dir / "azurite",
        port=site.ports.take(port_of(azurite.endpoint(before)), site.defaults.azurite),
        key=azurite.key(before) or base64.b64encode(secrets.token_bytes(32)).decode(),
    )
    return Provided(
        program=replace(server.program(site.environ, site.logs, site.say), outlive_s=OUTLIVE_S),
        started=True,
        env={f"{PREFIX}{CONNECTION_STRING}": server.connection_string},
        note=_stranger(site.defaults.azurite),
    )


def _external(name: str, address: str, answers: Callable[[], bool], note: str) -> Provided:
    return Provided(program=Program(name=name, command=(), answers=answers, address=address), started=False, note=note)


def _found(name: str, setting: str, value: str, answers: Callable[[], bool], address: str = "") -> Provided:
    return Provided(
        program=Program(name=name, command=(), answers=answers, address=address or value),
        started=False,
        env={f"{PREFIX}{setting}": value},
        note="found running, with this platform's mark",
    )


def _stranger(port: int) -> str:
    return f"what listens on port {port} is not ours and was left alone" if _anyone(port) else ""


def _anyone(port: int) -> bool:
    return any(listens(host, port) for host in LOOPBACK)


def reachable(url: str) -> bool:
    """Whether something listens there."""
    parts = urlsplit(url)
    return listens(parts.hostname or "", port_of(url))


def _without_password(url: str) -> str:
    return urlsplit(url).netloc.rpartition("@")[2]
