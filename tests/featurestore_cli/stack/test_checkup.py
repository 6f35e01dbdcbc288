"""What `doctor` finds, and what it says to do."""

import os
import socket
import stat
from collections.abc import Generator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from featurestore.settings import IngestSettings, Settings
from featurestore_cli.stack import checkup
from featurestore_cli.stack.checkup import Patient, examine
from featurestore_cli.stack.ports import Ports
from featurestore_cli.stack.state import Home, PlatformState, ProcessState, now
from tests.services import ENV


def patient(data_dir: Path, settings: Settings | None = None, **environ: str) -> Patient:
    given = settings or Settings.from_env({**environ, "FEATURESTORE_DATA_DIR": str(data_dir)})
    return Patient(Home(data_dir), given, {**ENV, **environ})


def found(one: Patient) -> str:
    return "\n".join(f"{finding.what}: {finding.advice}" for finding in examine(one))


@contextmanager
def running(home: Home, *processes: ProcessState) -> Generator[None]:
    """As if an `up` ran here."""
    home.open()
    with home.alone(print):
        home.write_state(
            PlatformState(pid=os.getpid(), started_at=now(), ready=True, dagster_url="", processes=processes)
        )
        yield


def test_a_platform_in_order(tmp_path: Path) -> None:
    one = patient(tmp_path)
    with running(one.home, ProcessState(name="kafka", state="ready", since=now())):
        assert examine(one) == []


def test_a_platform_that_is_not_running(tmp_path: Path) -> None:
    assert "the platform is not running: `featurestore up`" in found(patient(tmp_path))


def test_a_damaged_landing_zone_is_named(tmp_path: Path) -> None:
    chain = tmp_path / "landing" / "clicks" / "gen=a.b" / "partition=0"
    chain.mkdir(parents=True)
    (chain / f"{0:020d}.parquet").write_bytes(b"PAR1 and no more")
    text = found(patient(tmp_path))
    assert f"{chain}/{0:020d}.parquet is not a landed file, or damaged" in text
    assert "restore that file from a backup" in text


def test_a_missing_program_is_named_with_the_command_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkup.importlib.util, "find_spec", lambda name: None)
    bare = patient(tmp_path, PATH=str(tmp_path), JAVA_HOME="", HOME=str(tmp_path))
    text = found(bare)
    assert "Java 17 or newer is missing: `pip install 'featurestore-dagster[local]'` or `sudo apt-get install" in text
    assert "redis-server 6.2 or newer is missing" in text
    assert "jgo, which fetches Apache Kafka, is missing" in text
    nobody = Ports().take()
    with_kafka = patient(tmp_path, PATH=str(tmp_path), FEATURESTORE_KAFKA_BROKERS=f"127.0.0.1:{nobody}")
    assert "Java" not in found(with_kafka)


@pytest.mark.parametrize(
    "address", ["redis://:secret@127.0.0.1:{}/0", "redis+cluster://:secret@127.0.0.1:{}", "secret"]
)
def test_a_service_that_was_set_and_does_not_answer(tmp_path: Path, address: str) -> None:
    nobody = Ports().take()
    text = found(patient(tmp_path, FEATURESTORE_REDIS_URL=address.format(nobody)))
    assert "FEATURESTORE_REDIS_URL: it does not answer" in text
    assert "secret" not in text


def test_a_port_that_is_taken_is_named_but_nothing_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        monkeypatch.setattr(checkup, "DEFAULT_PORTS", {"Kafka": port})
        findings = examine(patient(tmp_path))
    [taken] = [one for one in findings if str(port) in one.what]
    assert f"(process {os.getpid()})" in taken.what
    assert not taken.wrong


def test_a_process_whose_port_is_taken(tmp_path: Path) -> None:
    one = patient(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        web = ProcessState(name="dagster-web", state="restarting", since=now(), address=f"http://127.0.0.1:{port}")
        with running(one.home, web):
            text = found(one)
    assert "dagster-web is restarting" in text
    assert f"port {port} is taken by" in text


def test_a_process_that_fails_says_its_last_words(tmp_path: Path) -> None:
    one = patient(tmp_path)
    since = now() - timedelta(minutes=1)
    with running(one.home, ProcessState(name="database", state="starting", since=since)):
        (one.home.logs / "database.log").write_text("first\n\x1b[31mcannot open the file\x1b[0m\n")
        text = found(one)
    assert "database is starting: cannot open the file: `featurestore logs database`" in text


def test_the_disk(tmp_path: Path) -> None:
    full = Settings(data_dir=tmp_path, ingest=IngestSettings(disk_reserve_bytes=2**60))
    assert "is full" in found(patient(tmp_path, full))
    assert "is full" not in found(patient(tmp_path))


def test_a_data_directory_that_others_can_read(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    data_dir.mkdir(mode=0o755)
    data_dir.chmod(0o755)
    assert f"`chmod 700 {data_dir}`" in found(patient(data_dir))
    data_dir.chmod(stat.S_IRWXU)
    assert "chmod" not in found(patient(data_dir))


def test_a_data_directory_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkup.os, "access", lambda path, mode: False)  # root may write everywhere
    assert "cannot be written" in found(patient(tmp_path / "data"))


def test_definitions_that_cannot_be_loaded(tmp_path: Path) -> None:
    text = found(patient(tmp_path, FEATURESTORE_PROJECT="no.such.module:PROJECT"))
    assert "the definitions cannot be loaded: FEATURESTORE_PROJECT: there is no module" in text


def test_what_a_killed_up_left_behind(tmp_path: Path) -> None:
    one = patient(tmp_path)
    one.home.open()
    with one.home.alone(print) as held:
        kept = os.dup(held)
    try:
        assert "programs of an `up` that was killed are still there" in found(one)
    finally:
        os.close(kept)


def test_an_old_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkup, "PYTHON", (4, 0))
    assert "use Python 4.0 or newer" in found(patient(tmp_path))
