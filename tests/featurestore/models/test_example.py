"""The example model: the same bytes everywhere, and put into the container once."""

import hashlib
import subprocess
import sys
import uuid
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from featurestore.models.example import MODEL_ID, VERSION, example, push_example
from featurestore.models.gate import check
from featurestore.models.metadata import encode
from featurestore.settings import AzureSettings, Settings
from tests.featurestore.models.examples import PROJECT
from tests.services import Azurite


def test_it_has_the_same_bytes_in_every_process() -> None:
    script = (
        "import hashlib; from featurestore.models.example import *; from featurestore.models.metadata import encode"
    )
    script += "; v, a = example(); print(hashlib.sha256(encode(v) + a['scaler'] + a['model']).hexdigest())"
    other = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True, timeout=60)
    version, artifacts = example()
    own = hashlib.sha256(encode(version) + artifacts["scaler"] + artifacts["model"]).hexdigest()
    assert other.stdout.strip() == own


@pytest.mark.services
def test_it_is_promoted_once_and_let_through(azurite: Azurite) -> None:
    container = f"c{uuid.uuid4().hex}"
    azure = AzureSettings(connection_string=azurite.connection_string, container=container)
    settings = Settings(azure=azure, namespace="ns")
    assert push_example(settings)
    assert not push_example(settings)
    blobs = azurite.blobs(f"ns-{container}")
    staged, production = (one.metadata for one in blobs.versions())
    assert (staged.status, production.status) == ("staging", "production")
    artifacts = {one.artifact_type: blobs.download(one) for one in production.artifacts}
    assert check(production, artifacts, PROJECT) == ()
    # What someone promoted since is left alone.
    blobs.push(replace(staged, version="2", artifacts=tuple(
        replace(one, azure_location=one.azure_location.replace("/1/", "/2/")) for one in staged.artifacts
    )), artifacts)  # fmt: skip
    blobs.promote(MODEL_ID, "2", actor="anna", now=datetime.now(UTC))
    assert not push_example(settings)
    assert blobs.versions()[-1].metadata.version == "2"
    assert VERSION == "1"
    blobs.close()
