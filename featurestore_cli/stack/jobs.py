"""What `up` does once in services that have just started; run as `python -m featurestore_cli.stack.jobs NAME …`."""

import logging
import os
import sys
from importlib.util import find_spec
from pathlib import Path

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.cimpl import NewTopic

from featurestore.definitions.project import load_project
from featurestore.definitions.source import KafkaSource
from featurestore.errors import FeatureStoreError, StoreUnavailableError
from featurestore.process.logs import configure
from featurestore.settings import Settings
from featurestore_cli.stack import azurite, kafka

log = logging.getLogger(__name__)

EXAMPLE_MODEL = "credit_risk_v1"
TIMEOUT_S = 30.0


def create_topics(settings: Settings, platform_id: str = "") -> None:
    """Create the topics of the project's sources that are missing, and with an id the marker of our own broker."""
    project = load_project(settings.project)
    names = [settings.name(one.topic_name, ".") for one in project.sources if isinstance(one, KafkaSource)]
    wanted = [NewTopic(name, settings.kafka.topic_partitions, settings.kafka.topic_replication) for name in names]
    if platform_id:
        wanted.append(NewTopic(f"{kafka.MARKER}{platform_id}", 1, 1))
    if not wanted:
        return
    admin = kafka.admin(settings.kafka.brokers, settings.kafka.client)
    for name, future in admin.create_topics(wanted, request_timeout=TIMEOUT_S).items():
        try:
            future.result(TIMEOUT_S)
        except KafkaException as error:
            reason: KafkaError = error.args[0]
            if reason.code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise StoreUnavailableError("Kafka", settings.kafka.brokers, f"topic {name}: {reason.str()}") from error
        else:
            log.info("created topic %s", name)


def push_example(settings: Settings, platform_id: str, done: Path) -> None:
    """Mark our own blob store and put the example model into it, if the project has that model; note it in `done`."""
    azurite.mark(settings.azure.connection_string, platform_id)
    project = load_project(settings.project)
    if any(model.model_id == EXAMPLE_MODEL for model in project.models) and find_spec("featurestore.models.example"):
        # Here and not at the top: a project without this model needs none of what makes it.
        from featurestore.models import example

        example.push_example(settings)
        log.info("put the example model %s into the blob store", EXAMPLE_MODEL)
    done.touch()


def main(argv: list[str]) -> int:
    settings = Settings.from_env(os.environ)  # noqa: TID251  # the entry point
    configure(settings.log_level, settings.log_format)
    try:
        match argv:
            case ["topics", *platform_id]:
                create_topics(settings, *platform_id)
            case ["example", platform_id, done]:
                push_example(settings, platform_id, Path(done))
            case _:
                log.error("usage: topics [PLATFORM_ID] | example PLATFORM_ID FILE")
                return 2
    except FeatureStoreError as error:
        log.error("%s", error)  # noqa: TRY400  # one line says it
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
