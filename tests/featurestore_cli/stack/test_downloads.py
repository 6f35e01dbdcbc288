"""What is fetched is named exactly: a hash for each file, an address for none."""

import json
import tomllib
from importlib.resources import files
from pathlib import Path

import pytest

from featurestore_cli.stack import downloads
from featurestore_cli.stack.downloads import DownloadError, Jar, cache_dir, kafka_jars

HERE = files("featurestore_cli.stack")


def test_every_jar_has_a_hash_and_none_an_address() -> None:
    text = HERE.joinpath(downloads.KAFKA_LOCK).read_text()
    jars = tomllib.loads(text)["dependencies"]
    assert len(jars) > 40
    assert all(len(jar["sha256"]) == 64 for jar in jars)
    assert "://" not in text
    versions = {jar["artifactId"]: jar["version"] for jar in jars}
    assert versions["kafka_2.13"] == versions["kafka-clients"] == "4.3.1"


def test_every_package_has_a_hash_and_none_an_address() -> None:
    text = HERE.joinpath("azurite_npm", "package-lock.json").read_text()
    packages = json.loads(text)["packages"]
    root = packages.pop("")
    wanted = json.loads(HERE.joinpath("azurite_npm", "package.json").read_text())["dependencies"]
    assert root["dependencies"] == wanted == {"azurite": downloads.AZURITE.removeprefix("azurite-")}
    assert all(package["integrity"].startswith("sha512-") for package in packages.values())
    assert not any("resolved" in package for package in packages.values())


def test_the_cache_is_the_users() -> None:
    assert cache_dir({"HOME": "/home/ann"}) == Path("/home/ann/.cache/featurestore")
    assert cache_dir({"HOME": "/home/ann", "XDG_CACHE_HOME": "/fast"}) == Path("/fast/featurestore")


@pytest.mark.services
def test_a_damaged_jar_is_fetched_again_and_a_wrong_one_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    small = next(jar for jar in downloads.read_lock() if jar.artifact == "jopt-simple")
    target = tmp_path / "maven" / small.path
    target.parent.mkdir(parents=True)
    target.write_bytes(b"cut short")
    monkeypatch.setattr(downloads, "read_lock", lambda: [small])
    assert kafka_jars(tmp_path, said.append) == [target]
    assert target.stat().st_size > 10_000
    assert said
    said.clear()
    assert kafka_jars(tmp_path, said.append) == [target]
    assert not said

    wrong = Jar(small.group, small.artifact, small.version, "0" * 64)
    monkeypatch.setattr(downloads, "read_lock", lambda: [wrong])
    with pytest.raises(DownloadError, match=r"jopt-simple 5\.0\.4 is not what kafka\.lock\.toml expects"):
        kafka_jars(tmp_path, said.append)
    assert not target.exists()
