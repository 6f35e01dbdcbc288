"""A real Azurite: a blob store with a key of its own, marked as ours."""

import pytest
from azure.core.exceptions import ClientAuthenticationError, HttpResponseError, ResourceExistsError
from azure.storage.blob import BlobServiceClient

from featurestore_cli.stack.azurite import endpoint, key, mark, marked, well_known
from tests.services import Azurite

pytestmark = pytest.mark.services


def test_a_blob_is_created_once_only(azurite: Azurite) -> None:
    with BlobServiceClient.from_connection_string(azurite.connection_string) as client:
        container = client.create_container("once")
        container.upload_blob("model.onnx", b"first")
        with pytest.raises(ResourceExistsError):
            container.upload_blob("model.onnx", b"second")
        assert container.download_blob("model.onnx").readall() == b"first"


def test_the_key_that_everybody_knows_does_not_open_it(azurite: Azurite) -> None:
    port = int(endpoint(azurite.connection_string).split(":")[2].split("/")[0])
    with (
        BlobServiceClient.from_connection_string(well_known("127.0.0.1", port), retry_total=0) as client,
        pytest.raises((ClientAuthenticationError, HttpResponseError)),
    ):
        client.get_account_information()


def test_only_the_marker_of_the_same_platform_counts(azurite: Azurite) -> None:
    assert not marked(azurite.connection_string, "abc")
    mark(azurite.connection_string, "abc")
    mark(azurite.connection_string, "abc")
    assert marked(azurite.connection_string, "abc")
    assert not marked(azurite.connection_string, "abcd")


@pytest.mark.parametrize(
    ("connection_string", "expected"),
    [
        ("AccountName=shop;AccountKey=a2V5;EndpointSuffix=core.windows.net", "https://shop.blob.core.windows.net"),
        ("AccountName=a;AccountKey=a2V5==;BlobEndpoint=http://127.0.0.1:10000/a;", "http://127.0.0.1:10000/a"),
        ("UseDevelopmentStorage=true", "http://127.0.0.1:10000/devstoreaccount1"),
        ("", ""),
    ],
)
def test_the_endpoint_is_read_from_the_connection_string(connection_string: str, expected: str) -> None:
    assert endpoint(connection_string) == expected


def test_a_key_may_end_in_equals_signs() -> None:
    assert key("AccountName=a;AccountKey=a2V5==;") == "a2V5=="
