"""`featurestore models`: from a folder into production and back, in a real container."""

import argparse
import json
import uuid
from collections.abc import Callable, Generator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pyarrow as pa
import pytest

from featurestore.errors import FeatureStoreError, TerminalError
from featurestore.models.blobs import ModelBlobs
from featurestore.models.example import MODEL_ID, example
from featurestore.models.publish import ModelStore
from featurestore.settings import AzureSettings, RedisSettings, Settings
from featurestore.testing.memory import MemoryStore
from featurestore_cli.commands import models
from featurestore_dagster.features.project import PROJECT
from featurestore_dagster.features.user import CREDIT_PROFILE, PROFILES
from tests.featurestore.models.examples import pushed
from tests.services import Azurite

pytestmark = pytest.mark.services

Run = Callable[..., int]


@pytest.fixture
def settings(azurite: Azurite, redis_url: str) -> Settings:
    container = f"c{uuid.uuid4().hex}"
    azure = AzureSettings(connection_string=azurite.connection_string, container=container)
    return Settings(azure=azure, redis=RedisSettings(url=redis_url))


@pytest.fixture
def run(settings: Settings) -> Run:
    def run(*words: str) -> int:
        parser = argparse.ArgumentParser()
        models.add_arguments(parser)
        return models.run(parser.parse_args(words), settings)

    return run


@pytest.fixture
def blobs(settings: Settings) -> Generator[ModelBlobs]:
    one = ModelBlobs(settings.azure)
    yield one
    one.close()


def folder(home: Path, version: str = "1", **changes: object) -> Path:
    """The example model as somebody who trained it would leave it."""
    made, artifacts = example()
    place = home / version / MODEL_ID
    place.mkdir(parents=True)
    for name, data in artifacts.items():
        (place / f"{name}.onnx").write_bytes(data)
    described = {"version": version, "golden": msgspec.to_builtins(made.golden), **changes}
    (place / "metadata.json").write_text(json.dumps(described))
    return place


def receipt(home: Path) -> Path:
    """Of a real training set."""
    store, noon = MemoryStore(PROJECT), datetime(2026, 5, 4, 12, tzinfo=UTC)
    store.send(PROFILES, {"user_id": 1, "as_of": noon, "income": 4.0, "debt": 1.0, "age_years": 30}, created_at=noon)
    times = pa.array([noon + timedelta(hours=1)], pa.timestamp("us", "UTC"))
    made = store.training_set(pa.table({"user_id": [1], "event_timestamp": times}), [CREDIT_PROFILE])
    path = home / "train.receipt.json"
    path.write_bytes(replace(made.receipt, spine_file="labels.parquet").to_json())
    store.close()
    return path


def test_a_folder_becomes_a_version_with_its_receipt(
    run: Run, blobs: ModelBlobs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place, of = folder(tmp_path, trained_date="2026-05-04T12:00:00Z"), receipt(tmp_path)
    assert run("push", str(place), "--receipt", str(of), "--by", "anna") == 0
    assert "featurestore models promote credit_risk_v1 1" in capsys.readouterr().out
    [found] = blobs.versions()
    expected, artifacts = example()
    assert found.metadata.artifacts == tuple(sorted(expected.artifacts, key=lambda one: one.artifact_type))
    assert found.metadata.expected_features == expected.expected_features
    assert (found.metadata.view_versions, found.metadata.actor) == ({"credit_profile": 1}, "anna")
    assert {one.artifact_type: blobs.download(one) for one in found.metadata.artifacts} == artifacts
    run("show", MODEL_ID)
    shown = capsys.readouterr().out
    sha256 = json.loads(of.read_bytes())["sha256"]
    for part in (f"training set {sha256[:12]}…, 1 rows", "labels labels.parquet", "credit_profile v1",
                 "debt_to_income_ratio", "2026-05-04 12:00", "anna", "staging", "served: nothing"):  # fmt: skip
        assert part in shown
    run("show", MODEL_ID, "--json")
    assert json.loads(capsys.readouterr().out)["receipt"] == json.loads(of.read_bytes())


def test_promotion_rollback_and_retirement(
    run: Run, settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def listed() -> dict[str, object]:
        capsys.readouterr()
        assert run("list", "--json") == 0
        [row] = json.loads(capsys.readouterr().out)
        return row

    for version in "123":
        run("push", str(folder(tmp_path, version)))
    assert listed() == {"model": MODEL_ID, "served": None, "production": None, "versions": "1, 2, 3"}
    for version in "123":
        assert run("promote", MODEL_ID, version) == 0
    assert listed()["production"] == "3"
    for before in "21":
        assert run("rollback", MODEL_ID) == 0
        assert listed()["production"] == before
    with pytest.raises(TerminalError, match="no version in production to go back to; `featurestore models retire"):
        run("rollback", MODEL_ID)
    assert run("retire", MODEL_ID, "1") == 0
    assert listed()["production"] is None
    run("promote", MODEL_ID, "2", "--by", "ben")
    assert listed()["production"] == "2"
    run("show", MODEL_ID, "2")
    words = [line.split()[-2:] for line in capsys.readouterr().out.splitlines()[-4:]]
    assert [status for _, status in words] == ["staging", "production", "retired", "production"]
    assert words[-1][0] == "ben"
    store = ModelStore(settings.redis.models)
    store.publish(*pushed("2"), 1)
    store.close()
    assert listed()["served"] == "2"
    assert run("promote", MODEL_ID, "2", "--wait", "5") == 0
    assert f"{MODEL_ID}  served: 2" in capsys.readouterr().out
    with pytest.raises(TerminalError, match=r"not so in Redis after 0\.1 s; Dagster's check `servable`"):
        run("promote", MODEL_ID, "3", "--wait", "0.1")


def test_what_would_be_refused_is_not_pushed(run: Run, blobs: ModelBlobs, tmp_path: Path) -> None:
    wrong = [{"inputs": [0.5, 40], "score": 0.999}]
    with pytest.raises(TerminalError, match="would not be served:\n  golden: golden row 0 scores"):
        run("push", str(folder(tmp_path, golden=wrong)))
    assert blobs.versions() == []


def test_a_training_set_without_an_expected_feature_is_refused(run: Run, tmp_path: Path) -> None:
    said = json.loads(receipt(tmp_path).read_bytes())
    (tmp_path / "other.json").write_text(json.dumps({**said, "features": ["age_years"]}))
    (tmp_path / "old.json").write_text(json.dumps({**said, "versions": {"credit_profile": 2}}))
    place = folder(tmp_path)
    for name, message in (("other", "'debt_to_income_ratio' is not in the training set"), ("old", "has version 2 of")):
        with pytest.raises(TerminalError, match=f"receipt: .*{message}"):
            run("push", str(place), "--receipt", str(tmp_path / f"{name}.json"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda place: (place / "metadata.json").unlink(), r"metadata\.json: No such file"),
        (lambda place: (place / "metadata.json").write_text("{"), r"metadata\.json: .*truncated"),
        (lambda place: (place / "metadata.json").write_text('{"version": "1", "gold": 1}'), "unknown field `gold`"),
        (lambda place: (place / "metadata.json").write_text('{"version": "1", "model_id": "m"}'),
         "model 'm' is not declared in the project; declared: credit_risk_v1"),
        (lambda place: (place / "metadata.json").write_text('{"version": "a b"}'), "cannot be a folder's name"),
        (lambda place: (place / "metadata.json").write_text('{"version": "1", "artifacts": ["model.onnx"]}'),
         r"artifacts are model\.onnx; the folder has model\.onnx, scaler\.onnx"),
        (lambda place: (place / "model.onnx").unlink(), "no file is called model.onnx"),
        (lambda place: (place / "model.json").write_text("{}"), "two files are called model"),
        (lambda place: (place / "model.onnx").rename(place / "model.pkl"), "format: .* is a pickle, which runs code"),
    ],
)  # fmt: skip
def test_a_folder_that_is_no_version_says_why(
    run: Run, blobs: ModelBlobs, tmp_path: Path, change: Callable[[Path], object], message: str
) -> None:
    place = folder(tmp_path)
    change(place)
    with pytest.raises(FeatureStoreError, match=message):
        run("push", str(place))
    assert blobs.versions() == []


def test_what_is_not_there_is_named(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("list") == 0
    assert "no model is known yet" in capsys.readouterr().err
    with pytest.raises(TerminalError, match="there is no model 'nobody'"):
        run("show", "nobody")
    run("push", str(folder(tmp_path)))
    with pytest.raises(TerminalError, match="has no version '7'; it has 1"):
        run("promote", MODEL_ID, "7")
    with pytest.raises(TerminalError, match="is not the receipt of a training set"):
        run("push", str(folder(tmp_path, "2")), "--receipt", str(tmp_path / "1" / MODEL_ID / "metadata.json"))
