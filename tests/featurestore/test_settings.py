"""Settings: environment over what `up` wrote over defaults; mistakes are named."""

import re
from pathlib import Path

import pytest

from featurestore.errors import SettingsError
from featurestore.settings import PLATFORM_ENV, RedisSettings, Settings

EXAMPLE = Path(__file__).parents[2] / ".env.example"


def test_environment_beats_the_platform_beats_the_default(tmp_path: Path) -> None:
    (tmp_path / PLATFORM_ENV).write_text(
        "FEATURESTORE_KAFKA_BROKERS=127.0.0.1:1\nFEATURESTORE_GRPC_ADDRESS=127.0.0.1:2\n"
    )
    env = {"FEATURESTORE_DATA_DIR": str(tmp_path), "FEATURESTORE_KAFKA_BROKERS": "broker:9092", "HOME": "/"}
    settings = Settings.from_env(env)
    assert settings.kafka.brokers == "broker:9092"
    assert settings.grpc.address == "127.0.0.1:2"
    assert settings.redis.url == "redis://127.0.0.1:6379/0"


def test_a_secret_may_stand_in_a_file_and_is_never_shown(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("s3cr3t\n")
    settings = Settings.from_env({"FEATURESTORE_GRPC_TOKEN_FILE": str(secret), "FEATURESTORE_DATA_DIR": str(tmp_path)})
    assert settings.grpc.token == "s3cr3t"
    assert "s3cr3t" not in repr(settings)


def test_a_secret_in_a_file_beats_the_platforms_plain_one(tmp_path: Path) -> None:
    (tmp_path / PLATFORM_ENV).write_text("FEATURESTORE_GRPC_TOKEN=of-the-platform\n")
    (tmp_path / "secret").write_text("of-the-user")
    env = {"FEATURESTORE_GRPC_TOKEN_FILE": str(tmp_path / "secret"), "FEATURESTORE_DATA_DIR": str(tmp_path)}
    assert Settings.from_env(env).grpc.token == "of-the-user"


def test_client_settings_of_kafka_pass_through() -> None:
    settings = Settings.from_env({"FEATURESTORE_KAFKA_CLIENT_SASL_USERNAME": "me"})
    assert settings.kafka.client == {"sasl.username": "me"}


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("FEATURESTORE_KAFKA_BROKER", "x", "did you mean FEATURESTORE_KAFKA_BROKERS?"),
        ("FEATURESTORE_INGEST_BATCH_ROWS", "many", "'many' is not a whole number"),
        ("FEATURESTORE_DAGSTER_RUN_INTERVAL_S", "soon", "'soon' is not a number"),
        ("FEATURESTORE_INGEST_BATCH_ROWS", "-1", "is negative"),
        ("FEATURESTORE_GRPC_TOKEN_FILE", "/nowhere/at/all", "cannot read"),
    ],
)
def test_mistakes_are_named(name: str, value: str, message: str) -> None:
    with pytest.raises(SettingsError, match=re.escape(message)) as raised:
        Settings.from_env({name: value})
    assert name in str(raised.value)


def test_the_example_names_every_setting_and_its_default(tmp_path: Path) -> None:
    lines = [
        line.removeprefix("# ") for line in EXAMPLE.read_text().splitlines() if "FEATURESTORE_" in line and "=" in line
    ]
    shown = dict(line.split("#")[0].strip().split("=", 1) for line in lines)
    env = {name: value for name, value in shown.items() if name != "FEATURESTORE_DATA_DIR"}
    assert Settings.from_env(env) == Settings()
    missing = {name for name in Settings.names() if name not in shown}
    assert not missing


def test_models_lie_with_the_online_store_unless_it_is_a_cluster() -> None:
    plain, own, cluster = "redis://a:6379/0", "redis://b:6379/0", "rediss+cluster://c:6379,d:6379"
    assert RedisSettings(url=plain, queue_url=own).models == plain
    assert RedisSettings(url=cluster, queue_url=own).models == own
    with pytest.raises(SettingsError, match="set FEATURESTORE_REDIS_QUEUE_URL"):
        _ = RedisSettings(url=cluster).queues
