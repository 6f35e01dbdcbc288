"""Programs that are fetched once, by exact version and hash, into the user's cache: Kafka's jars and Azurite."""

import fcntl
import hashlib
import shutil
import threading
import time
import tomllib
from collections.abc import Generator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from featurestore.errors import TransientError
from featurestore_cli.stack.leash import describe
from featurestore_cli.stack.processes import Child, start
from featurestore_cli.stack.runtimes import MissingProgramError, Node
from featurestore_cli.stack.service import NotStartedError, Program, Say

# Written by jgo: `jgo.build("org.apache.kafka:kafka_2.13:4.3.1+org.apache.logging.log4j:log4j-slf4j-impl:2.25.4!",
# resolver=PythonResolver())` and then `env.lock_path`. (4.4.0 names an artifact that was never published; without the
# "!" log4j's dependency management pulls Kafka's own jars down to another version.)
KAFKA_LOCK = "kafka.lock.toml"
AZURITE = "azurite-3.35.0"  # the version that azurite/package.json names
AZURITE_MAIN = "node_modules/azurite/dist/src/blob/main.js"
FETCH_TIMEOUT_S = 900.0


class DownloadError(TransientError):
    """A program could not be fetched, or is not what was asked for."""


@dataclass(frozen=True, slots=True)
class Jar:
    """One line of the lock."""

    group: str
    artifact: str
    version: str
    sha256: str

    @property
    def path(self) -> Path:
        """Below a Maven repository."""
        return Path(*self.group.split("."), self.artifact, self.version, f"{self.artifact}-{self.version}.jar")


def cache_dir(env: Mapping[str, str]) -> Path:
    """The user's cache: shared by all data directories and by the tests."""
    home = env.get("XDG_CACHE_HOME") or Path(env.get("HOME") or Path.home(), ".cache")
    return Path(home, "featurestore")


def kafka_jars(cache: Path, say: Say) -> list[Path]:
    """The jars of the lock, each checked against its hash; those that are missing or damaged are fetched."""
    repository = cache / "maven"
    jars = read_lock()
    with _alone(cache, "maven", say):
        missing = [jar for jar in jars if not _intact(repository / jar.path, jar.sha256)]
        if missing:
            _fetch_jars(missing, repository, say)
    return [repository / jar.path for jar in jars]


def read_lock() -> list[Jar]:
    """Every jar of Kafka and what it needs."""
    lock = tomllib.loads(files("featurestore_cli.stack").joinpath(KAFKA_LOCK).read_text())
    return [Jar(one["groupId"], one["artifactId"], one["version"], one["sha256"]) for one in lock["dependencies"]]


def azurite(cache: Path, node: Node, logs: Path, env: Mapping[str, str], say: Say) -> Path:
    """Azurite's program for blobs, installed by npm from a lock with a hash per package."""
    home = cache / AZURITE
    with _alone(cache, AZURITE, say):
        if not (home / AZURITE_MAIN).exists():
            _npm_install(home, node, logs, env, say)
    return home / AZURITE_MAIN


def _fetch_jars(jars: list[Jar], repository: Path, say: Say) -> None:
    try:
        # Here and not at the top: they come with the extra `local`, and only the first start needs them.
        from jgo.maven import MavenContext, PythonResolver
    except ImportError:
        raise MissingProgramError("jgo, which fetches Apache Kafka,") from None
    maven = MavenContext(resolver=PythonResolver(), repo_cache=repository, timeout=60)

    def fetch(jar: Jar) -> None:
        target = repository / jar.path
        target.unlink(missing_ok=True)
        try:
            maven.project(jar.group, jar.artifact).at_version(jar.version).artifact().resolve()
        except (OSError, RuntimeError) as error:  # of the network, and jgo's own
            raise DownloadError(
                f"cannot fetch {jar.artifact} {jar.version} from the Maven repository: {error}"
            ) from error
        if not _intact(target, jar.sha256):
            target.unlink()
            raise DownloadError(f"{jar.artifact} {jar.version} is not what {KAFKA_LOCK} expects: its sha256 differs")

    say(f"kafka: fetching {len(jars)} jars (about 44 MB in all; only once)")
    with ThreadPoolExecutor(max_workers=6, thread_name_prefix="jars") as pool:
        futures = [pool.submit(fetch, jar) for jar in jars]
        try:
            for done, future in enumerate(as_completed(futures), start=1):
                future.result()
                if done % 10 == 0 or done == len(jars):
                    say(f"kafka: {done} of {len(jars)} jars")
        except DownloadError:
            pool.shutdown(cancel_futures=True)
            raise


def _intact(path: Path, sha256: str) -> bool:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == sha256
    except FileNotFoundError:
        return False


def _npm_install(home: Path, node: Node, logs: Path, env: Mapping[str, str], say: Say) -> None:
    """Install beside and rename: a directory of that name is complete."""
    staging = home.with_name(f"{home.name}.part")
    shutil.rmtree(staging, ignore_errors=True)
    shutil.rmtree(home, ignore_errors=True)
    staging.mkdir(parents=True)
    for name in ("package.json", "package-lock.json"):
        (staging / name).write_text(files("featurestore_cli.stack").joinpath("azurite_npm", name).read_text())
    npm = Program(
        name="azurite-install",
        # No package of it has to run anything when it is installed, so none may.
        command=(*node.npm, "ci", "--omit=dev", "--ignore-scripts", "--no-audit", "--no-fund"),
        answers=lambda: False,
        directory=staging,
        env={
            "PATH": f"{node.program.parent}:{env.get('PATH', '')}",
            "npm_config_cache": str(home.parent / "npm"),
            "npm_config_update_notifier": "false",
        },
    )
    say("azurite: installing it with npm (about 190 MB; only once)")
    _finish(start(npm, logs, env), say)
    staging.rename(home)
    shutil.rmtree(home.parent / "npm", ignore_errors=True)


def _finish(npm: Child, say: Say) -> None:
    started = time.monotonic()
    never = threading.Event()
    while (code := npm.exit_code()) is None:
        waited_s = time.monotonic() - started
        if waited_s > FETCH_TIMEOUT_S:
            npm.stop()
            raise NotStartedError(npm.program.name, f"did not end within {FETCH_TIMEOUT_S:g} s", npm.log)
        if int(waited_s * 10) % 100 == 99:
            say(f"azurite: still installing ({waited_s:.0f} s)")
        never.wait(0.1)
    if code:
        raise NotStartedError(npm.program.name, f"ended with {describe(code)}", npm.log)


@contextmanager
def _alone(cache: Path, name: str, say: Say) -> Generator[None]:
    """One process at a time; the others wait and then find the work done."""
    cache.mkdir(parents=True, exist_ok=True)
    never, deadline, said = threading.Event(), time.monotonic() + FETCH_TIMEOUT_S, False
    with (cache / f"{name}.lock").open("w") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise DownloadError(f"another process has been fetching {name} for too long: {file.name}") from None
            if not said:
                say(f"{name}: another process is fetching it; waiting")
                said = True
            never.wait(0.2)
        yield
