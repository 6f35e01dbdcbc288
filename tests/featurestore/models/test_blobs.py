"""The container of models, in a real blob service."""

import socket
import sys
import uuid
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from time import monotonic
from typing import Any

import pytest
from azure.storage.blob import ContainerClient, ContainerSasPermissions, generate_container_sas

from featurestore.errors import SettingsError, StoreUnavailableError, TerminalError
from featurestore.models.blobs import ModelBlobs
from featurestore.models.example import MODEL_ID
from featurestore.models.history import Unusable
from featurestore.models.metadata import ModelVersion, encode
from featurestore.settings import AzureSettings
from tests.featurestore.models.examples import NOW, promoted, pushed
from tests.services import Azurite

pytestmark = pytest.mark.services


@pytest.fixture
def container(azurite: Azurite) -> Generator[ContainerClient]:
    """A container of its own for each test; not created."""
    name = f"c{uuid.uuid4().hex}"
    with ContainerClient.from_connection_string(azurite.connection_string, name) as client:
        yield client


@pytest.fixture
def blobs(azurite: Azurite, container: ContainerClient) -> Generator[ModelBlobs]:
    one = azurite.blobs(container.container_name)
    yield one
    one.close()


def names(container: ContainerClient) -> list[str]:
    return [blob.name for blob in container.list_blobs()]


def history(blobs: ModelBlobs) -> list[tuple[str, str, int]]:
    return [(one.metadata.version, one.metadata.status, one.metadata.promotion) for one in blobs.versions()]


def promote(blobs: ModelBlobs, version: str, **more: Any) -> bool:
    return blobs.promote(MODEL_ID, version, **{"actor": "anna", "now": NOW, **more})


# ---- versions


def test_a_container_that_is_not_there_has_no_models(blobs: ModelBlobs) -> None:
    assert blobs.versions() == []


def test_a_version_is_pushed_once(blobs: ModelBlobs, container: ContainerClient) -> None:
    assert blobs.push(*pushed())
    assert not blobs.push(*pushed())
    folder = "credit_risk_v1/1/"
    assert names(container) == [f"{folder}{name}" for name in ("metadata.json", "model.onnx", "scaler.onnx")]
    [found] = blobs.versions()
    assert (found.metadata, found.location) == (pushed()[0], f"{folder}metadata.json")
    assert found.etag.startswith("0x")
    assert {one.artifact_type: blobs.download(one) for one in found.metadata.artifacts} == pushed()[1]


def test_a_version_is_never_changed(blobs: ModelBlobs) -> None:
    blobs.push(*pushed())
    version, artifacts = pushed()
    with pytest.raises(
        TerminalError, match=r"metadata\.json is there already with other content; give the model another"
    ):
        blobs.push(replace(version, golden=()), artifacts)
    assert [one.metadata for one in blobs.versions()] == [version]


def test_a_version_without_metadata_is_none(blobs: ModelBlobs, container: ContainerClient) -> None:
    container.create_container()
    container.upload_blob("credit_risk_v1/1/model.onnx.production", b"abc")
    assert blobs.versions() == []


@pytest.mark.parametrize("artifacts", [{}, {"scaler": b"", "model": b"x"}])
def test_bytes_that_are_not_the_described_ones_are_not_pushed(blobs: ModelBlobs, artifacts: dict[str, bytes]) -> None:
    with pytest.raises(TerminalError, match="are not those that its metadata describes"):
        blobs.push(pushed()[0], artifacts)
    assert blobs.versions() == []


def test_a_version_is_not_pushed_into_production(blobs: ModelBlobs) -> None:
    with pytest.raises(TerminalError, match="status staging, then promoted"):
        blobs.push(*promoted())


# ---- promotions


def test_promotion_and_the_way_back(blobs: ModelBlobs, container: ContainerClient) -> None:
    blobs.push(*pushed("1"))
    blobs.push(*pushed("2"))
    assert promote(blobs, "1")
    assert not promote(blobs, "1")
    assert promote(blobs, "2")
    assert promote(blobs, "1")
    assert promote(blobs, "1", status="retired")
    assert history(blobs) == [
        ("1", "staging", 0), ("2", "staging", 0),
        ("1", "production", 1), ("2", "production", 2), ("1", "production", 3), ("1", "retired", 4),
    ]  # fmt: skip
    assert sum(name.endswith("production") for name in names(container)) == 4
    said = blobs.versions()[2].metadata
    assert [one.azure_location.endswith(".production") for one in said.artifacts] == [True, True]
    assert {one.artifact_type: blobs.download(one) for one in said.artifacts} == pushed()[1]


def test_what_was_said_later_has_a_later_time_whatever_the_clocks(blobs: ModelBlobs) -> None:
    blobs.push(*pushed("1", recorded_at=NOW + timedelta(hours=1)))
    blobs.push(*pushed("2"))
    promote(blobs, "1", now=NOW)
    promote(blobs, "2", now=NOW - timedelta(days=1))
    promote(blobs, "1", now=NOW + timedelta(days=1))
    times = [one.metadata.recorded_at for one in blobs.versions() if one.metadata.promotion]
    assert times == sorted(set(times))
    assert min(times) > NOW + timedelta(hours=1)


def test_racing_promotions_have_one_order(azurite: Azurite, container: ContainerClient, blobs: ModelBlobs) -> None:
    for version in "1234":
        blobs.push(*pushed(version))

    def one(version: str) -> bool:
        own = azurite.blobs(container.container_name)
        try:
            return promote(own, version)
        finally:
            own.close()

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(one, "1234"))
    said = [entry for entry in history(blobs) if entry[2]]
    assert [number for _, _, number in said] == [1, 2, 3, 4]
    assert {version for version, _, _ in said} == set("1234")


def test_a_version_that_is_not_there_is_not_promoted(blobs: ModelBlobs) -> None:
    with pytest.raises(TerminalError, match="there is no such version"):
        promote(blobs, "7")


def test_a_damaged_version_is_not_promoted(blobs: ModelBlobs, container: ContainerClient) -> None:
    blobs.push(*pushed())
    model = container.download_blob("credit_risk_v1/1/model.onnx").readall()
    container.upload_blob("credit_risk_v1/1/model.onnx", model[:-1] + b"?", overwrite=True)
    with pytest.raises(TerminalError, match=r"model\.onnx has the digest"):
        promote(blobs, "1")
    container.upload_blob("credit_risk_v1/1/model.onnx", model[:-1], overwrite=True)
    with pytest.raises(TerminalError, match=r"model\.onnx has \d+ bytes; its metadata says"):
        promote(blobs, "1")
    assert history(blobs) == [("1", "staging", 0)]


def test_what_stands_behind_a_missing_promotion_does_not_count(blobs: ModelBlobs, container: ContainerClient) -> None:
    blobs.push(*pushed("1"))
    blobs.push(*pushed("2"))
    for version in "121":
        promote(blobs, version)
    container.delete_blob("credit_risk_v1/metadata.000002.json")
    assert [entry for entry in history(blobs) if entry[2]] == [("1", "production", 1)]
    assert blobs.scan().unusable == (
        Unusable("credit_risk_v1/metadata.000003.json", "promotion 000002 is missing or unusable"),
    )
    with pytest.raises(TerminalError, match=r"metadata.000003.json cannot be used: promotion 000002 is missing"):
        promote(blobs, "2")


# ---- files of others


def misplaced() -> ModelVersion:
    return pushed("2")[0]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"{", "truncated"),
        (b"", "truncated"),
        (encode(misplaced()), "by its content its name would be credit_risk_v1/2/metadata.json"),
        (b" " * (4 * 2**20 + 1), "too much for a metadata file"),
    ],
)
def test_a_file_that_cannot_be_used_disturbs_no_other(
    blobs: ModelBlobs, container: ContainerClient, content: bytes, reason: str
) -> None:
    blobs.push(*pushed("1"))
    container.upload_blob("credit_risk_v1/3/metadata.json", content)
    scan = blobs.scan()
    assert [one.metadata.version for one in scan.versions] == ["1"]
    assert [one.location for one in scan.unusable] == ["credit_risk_v1/3/metadata.json"]
    assert reason in scan.unusable[0].reason


def test_a_file_that_was_overwritten_is_read_again(blobs: ModelBlobs, container: ContainerClient) -> None:
    blobs.push(*pushed("1"))
    [before] = blobs.versions()
    container.upload_blob("credit_risk_v1/1/metadata.json", encode(pushed("1", actor="eve")[0]), overwrite=True)
    [after] = blobs.versions()
    assert (before.metadata.actor, after.metadata.actor) == ("featurestore", "eve")
    assert before.etag != after.etag


# ---- the service is not there, or refuses


def parts_of(azurite: Azurite) -> dict[str, str]:
    return dict(part.split("=", 1) for part in azurite.connection_string.strip(";").split(";"))


def joined(parts: dict[str, str]) -> str:
    return ";".join(f"{name}={value}" for name, value in parts.items())


def test_a_service_that_is_not_there_is_named_in_bounded_time(azurite: Azurite) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    parts = parts_of(azurite)
    parts["BlobEndpoint"] = f"http://127.0.0.1:{port}/{parts['AccountName']}"
    blobs = ModelBlobs(AzureSettings(connection_string=joined(parts), timeout_s=5))
    started = monotonic()
    with pytest.raises(StoreUnavailableError) as caught:
        blobs.versions()
    assert monotonic() - started < 15
    assert f"127.0.0.1:{port}" in str(caught.value)
    assert parts["AccountKey"] not in str(caught.value)
    blobs.close()


def test_a_wrong_key_is_a_wrong_setting(azurite: Azurite) -> None:
    blobs = ModelBlobs(
        AzureSettings(connection_string=azurite.connection_string.replace("AccountKey=", "AccountKey=AAAA"))
    )
    with pytest.raises(SettingsError, match="FEATURESTORE_AZURE_…") as caught:
        blobs.versions()
    assert "AAAA" not in str(caught.value)
    blobs.close()


@pytest.mark.parametrize("text", ["AccountKey=secret", "secret"])
def test_what_is_no_connection_string_is_a_wrong_setting(text: str) -> None:
    with pytest.raises(SettingsError, match="FEATURESTORE_AZURE_CONNECTION_STRING") as caught:
        ModelBlobs(AzureSettings(connection_string=text))
    assert "secret" not in str(caught.value)


# ---- ways to sign in


def signed_in(azurite: Azurite, container: str, way: str) -> AzureSettings:
    parts = parts_of(azurite)
    secret = {"account_key": parts["AccountKey"]} if way == "key" else {"sas_token": sas_token(parts, container)}
    return AzureSettings(account_url=parts["BlobEndpoint"], container=container, **secret)


def sas_token(parts: dict[str, str], container: str) -> str:
    may = ContainerSasPermissions(read=True, write=True, list=True, create=True)
    until = datetime.now(UTC) + timedelta(hours=1)
    return generate_container_sas(parts["AccountName"], container, parts["AccountKey"], permission=may, expiry=until)


@pytest.mark.parametrize("way", ["key", "sas"])
def test_an_account_key_and_a_sas_token_sign_in(azurite: Azurite, container: ContainerClient, way: str) -> None:
    container.create_container()  # which a SAS token of the container may not
    blobs = ModelBlobs(signed_in(azurite, container.container_name, way))
    assert blobs.push(*pushed())
    assert promote(blobs, "1")
    assert len(blobs.versions()) == 2
    blobs.close()


def test_a_sas_token_of_another_container_is_refused(azurite: Azurite, container: ContainerClient) -> None:
    elsewhere = replace(signed_in(azurite, "elsewhere", "sas"), container=container.container_name)
    blobs = ModelBlobs(elsewhere)
    with pytest.raises(SettingsError, match="refuses the credentials") as caught:
        blobs.versions()
    assert "sig=" not in str(caught.value)
    blobs.close()


URL = "https://account.blob.core.windows.net"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (AzureSettings(), "neither FEATURESTORE_AZURE_CONNECTION_STRING nor …_ACCOUNT_URL is set"),
        (AzureSettings(account_url=URL, account_key="a2V5", sas_token="sig=x"), "are both set"),
        (AzureSettings(account_url="http://127.0.0.1:1/a"), "default credentials need an https:// address"),
    ],
)
def test_settings_that_do_not_say_how_to_sign_in_are_refused(settings: AzureSettings, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        ModelBlobs(settings)


def test_azures_default_credentials_are_those_of_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    blobs = ModelBlobs(AzureSettings(account_url=URL))
    assert blobs.address == f"{URL}/ai-models"
    blobs.close()
    monkeypatch.setitem(sys.modules, "azure.identity", None)  # as without the extra
    with pytest.raises(SettingsError, match=r"install featurestore-dagster\[azure\]"):
        ModelBlobs(AzureSettings(account_url=URL))
