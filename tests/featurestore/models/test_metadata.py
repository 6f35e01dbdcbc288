"""Metadata files and rows."""

from datetime import UTC, datetime, timedelta, timezone

import pytest

from featurestore.models.metadata import MetadataError, decode, encode, metadata_table
from tests.featurestore.models.examples import NOW, promoted, pushed


def test_what_is_written_is_read() -> None:
    for version, _ in (pushed(receipt={"rows": 3, "features": ["a"]}), promoted("2024-01.rc_1")):
        assert decode(encode(version), "x") == version
        assert encode(decode(encode(version), "x")) == encode(version)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"type": "float"', '"type": "double"', r"Invalid enum value 'double' - at `\$.expected_features\[0\].type`"),
        ('"status": "staging"', '"status": "live"', r"Invalid enum value 'live' - at `\$.status`"),
        ('"sha256": "', '"sha": "', r"missing required field `sha256`"),
        ('"index": 1', '"index": "1"', r"Expected `int`, got `str` - at `\$.expected_features\[1\].index`"),
        ('"model_id": "credit_risk_v1"', '"model_id": "Credit Risk"', "'Credit Risk' is not lower_snake_case"),
        ('"version": "1"', '"version": "../1"', "'../1' cannot be a folder's name"),
        ('"azure_location": "credit_risk_v1/1/', '"azure_location": "other/1/', r"does not lie in credit_risk_v1/1/"),
        ('"azure_location": "credit_risk_v1/1/', '"azure_location": "credit_risk_v1/1/../', r"does not lie in"),
        ("2026-01-15T12:00:00Z", "2026-01-15T12:00:00", "has no time zone"),
        ("2026-01-15T12:00:00Z", "yesterday", "Invalid RFC3339"),
        ('"view_versions": {', '"view_versions": {,', "malformed"),
    ],
)
def test_what_is_wrong_is_named(old: str, new: str, message: str) -> None:
    text = encode(pushed()[0]).decode()
    assert old in text
    with pytest.raises(MetadataError, match=message) as caught:
        decode(text.replace(old, new).encode(), "credit_risk_v1/1/metadata.json")
    assert str(caught.value).startswith("credit_risk_v1/1/metadata.json: ")


def test_bytes_that_are_no_text_are_named() -> None:
    with pytest.raises(MetadataError, match=r"^m\.json: "):
        decode(b'{"model_id": "\xff"}', "m.json")


def test_members_of_a_newer_version_are_no_error() -> None:
    text = encode(pushed()[0]).decode().replace('"actor"', '"colour": "red", "actor"')
    assert decode(text.encode(), "x") == pushed()[0]


def test_rows_are_those_of_the_log() -> None:
    version, _ = promoted()
    model = metadata_table(version.rows("0x1")).to_pylist()[1]
    assert (model["model_id"], model["artifact_type"], model["status"]) == ("credit_risk_v1", "model", "production")
    assert model["azure_location"] == "credit_risk_v1/1/model.onnx.production"
    assert model["view_versions"] == '{"credit_profile":1}'
    assert model["expected_features"].startswith('[{"index":0,"name":"debt_to_income_ratio","type":"float"}')
    assert (model["trained_date"], model["recorded_at"]) == ("2026-01-15T12:00:00+00:00", NOW.replace(tzinfo=None))
    assert (model["etag"], model["actor"], model["format"]) == ("0x1", "anna", "onnx")


def test_times_are_utc_in_the_log() -> None:
    elsewhere = timezone(timedelta(hours=5, minutes=30))
    version, _ = pushed(recorded_at=datetime(2026, 1, 1, 2, tzinfo=elsewhere), trained_date=NOW.astimezone(elsewhere))
    [row, _] = metadata_table(version.rows("0x1")).to_pylist()
    assert row["recorded_at"] == datetime(2025, 12, 31, 20, 30)  # noqa: DTZ001  # as the log has it
    assert row["trained_date"] == NOW.astimezone(UTC).isoformat()


def test_keys_in_redis_do_not_collide() -> None:
    assert [one.key_suffix for one in promoted()[0].artifacts] == ["scaler.onnx", "onnx"]
    assert [one.file_name for one in promoted()[0].artifacts] == ["scaler.onnx", "model.onnx"]
