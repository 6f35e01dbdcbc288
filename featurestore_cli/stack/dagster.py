"""Dagster as a part of the platform: one code server, shared by webserver and daemon."""

import shutil
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import yaml

from featurestore.errors import TerminalError
from featurestore_cli.stack.ports import Ports
from featurestore_cli.stack.service import Program, get_http

DEFAULT_PORT = 3000
DEFAULT_MODULE = "featurestore_dagster.definitions"
LONGEST_SOCKET_PATH = 100  # the kernel takes 107 bytes
SOURCES = {"python_module": "--module-name", "python_file": "--python-file", "python_package": "--package-name"}
NAMES = {"python_module": "module_name", "python_file": "relative_path", "python_package": "package_name"}


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeServer:
    """One code location, served on a socket that only this user can open."""

    name: str
    location: str
    arguments: tuple[str, ...]
    socket: Path | None
    port: int = 0

    def program(self, directory: Path) -> Program:
        at = ("--socket", str(self.socket)) if self.socket else ("--host", "127.0.0.1", "--port", str(self.port))
        return Program(
            name=self.name,
            # `code-server start` and not `api grpc`: "Reload" in the UI then takes up changed features.
            command=(sys.executable, "-m", "dagster", "code-server", "start", *at, *self.arguments),
            directory=directory,
            ports=(self.port,) if self.port else (),
            answers=self._answers,  # it opens its socket after it has loaded the code
            ready_within_s=120.0,
            stop_within_s=30.0,  # runs that it began come to their end first
        )

    def entry(self) -> Mapping[str, object]:
        """Of the workspace file."""
        at = {"socket": str(self.socket)} if self.socket else {"host": "127.0.0.1", "port": self.port}
        return {"grpc_server": {**at, "location_name": self.location}}

    def _answers(self) -> bool:
        family, address = (
            (socket.AF_UNIX, str(self.socket)) if self.socket else (socket.AF_INET, ("127.0.0.1", self.port))
        )
        with socket.socket(family, socket.SOCK_STREAM) as client:
            client.settimeout(0.5)
            return client.connect_ex(address) == 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Dagster:
    """What has to be started, in which directory, and the workspace file that ties it together."""

    home: Path
    project: Path  # where the user stands: the code is loaded from there
    port: int
    code_servers: tuple[CodeServer, ...]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def prepare(self) -> bool:
        """Write DAGSTER_HOME. Returns whether the instance has to be initialised (`init`) before others open it."""
        self.home.mkdir(mode=0o700, parents=True, exist_ok=True)
        shutil.copyfile(instance_file(self.project), self.home / "dagster.yaml")
        workspace = {"load_from": [server.entry() for server in self.code_servers]}
        (self.home / "workspace.yaml").write_text(yaml.safe_dump(workspace))
        return self._stamp.read_text() != version("dagster") if self._stamp.exists() else True

    def initialised(self) -> None:
        self._stamp.write_text(version("dagster"))

    def init(self) -> Program:
        """Make or migrate the instance's storage: two processes that do so at once get in each other's way."""
        return Program(
            name="dagster-init",
            command=(sys.executable, "-m", "dagster", "instance", "migrate"),
            directory=self.project,
            answers=lambda: False,
        )

    def webserver(self) -> Program:
        where = ("--host", "127.0.0.1", "--port", str(self.port), "--workspace", str(self.home / "workspace.yaml"))
        return Program(
            name="dagster-web",
            command=(sys.executable, "-m", "dagster_webserver", *where),
            directory=self.project,
            answers=lambda: get_http(self.port, "/server_info")[0] == 200,
            address=self.url,
            ports=(self.port,),
            ready_within_s=120.0,
        )

    def daemon(self) -> Program:
        return Program(
            name="dagster-daemon",
            command=(sys.executable, "-m", "dagster._daemon", "run", "--workspace", str(self.home / "workspace.yaml")),
            directory=self.project,
            answers=lambda: True,  # it listens nowhere; that it runs is all that is known
            stop_within_s=30.0,
        )

    @property
    def _stamp(self) -> Path:
        return self.home / "initialised"


def plan_dagster(home: Path, project: Path, *, previous_port: int, ports: Ports) -> Dagster:
    """Read the workspace of `project` and give every location of it a server."""
    servers = tuple(
        _code_server(home, project, number, entry, ports) for number, entry in enumerate(_locations(project), start=1)
    )
    port = ports.take(previous_port, DEFAULT_PORT)
    return Dagster(home=home, project=project, port=port, code_servers=servers)


def instance_file(project: Path) -> Path:
    """The project's dagster.yaml, else the one that comes with featurestore-dagster."""
    here = Path(__file__)
    for file in (project / "dagster.yaml", here.with_name("dagster.yaml"), here.parents[2] / "dagster.yaml"):
        if file.exists():
            return file
    raise TerminalError("there is no dagster.yaml in this directory, nor in the installed package; reinstall it")


def _locations(project: Path) -> list[tuple[str, Mapping[str, str]]]:
    """(kind, what it says) of each code location of workspace.yaml."""
    file = project / "workspace.yaml"
    if not file.exists():
        return [("python_module", {"module_name": DEFAULT_MODULE, "working_directory": "."})]
    try:
        content = yaml.safe_load(file.read_text()) or {}
    except yaml.YAMLError as error:
        raise TerminalError(f"{file} is not YAML: {error}") from error
    found: list[tuple[str, Mapping[str, str]]] = []
    for entry in content.get("load_from", []):
        [(kind, value)] = entry.items()
        if kind not in SOURCES:
            raise TerminalError(f"{file}: `up` cannot start a {kind}; it can {', '.join(SOURCES)}")
        found.append((kind, value if isinstance(value, dict) else {NAMES[kind]: value}))
    return found


def _code_server(
    home: Path, project: Path, number: int, entry: tuple[str, Mapping[str, str]], ports: Ports
) -> CodeServer:
    kind, value = entry
    target = value[NAMES[kind]]
    directory = project / value.get("working_directory", ".")
    arguments = [SOURCES[kind], target, "--working-directory", str(directory)]
    if "attribute" in value:
        arguments += ["--attribute", value["attribute"]]
    name = "dagster-code" if number == 1 else f"dagster-code-{number}"
    path = home / f"code-{number}.sock"
    fits = len(str(path).encode()) <= LONGEST_SOCKET_PATH
    return CodeServer(
        name=name,
        location=value.get("location_name", target),
        arguments=tuple(arguments),
        socket=path if fits else None,
        port=0 if fits else ports.take(),
    )
