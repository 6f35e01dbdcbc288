"""Send one record and watch it become a value: offset, landed file, run, log, online value, each with its time."""

import argparse
import json
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC
from typing import Any, TypeVar

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from featurestore.definitions.project import Project, load_project
from featurestore.definitions.source import KafkaSource, Source
from featurestore.definitions.view import FeatureView
from featurestore.entity_id import entity_id
from featurestore.errors import StoreUnavailableError, TerminalError, TransientError
from featurestore.landing.batch import Batch
from featurestore.landing.zone import LandingZone
from featurestore.offline.log import LedgerRow, ledger_row
from featurestore.settings import Settings
from featurestore.store import Keys, Store, connect
from featurestore_cli.arguments import seconds
from featurestore_cli.commands.explain import run_of
from featurestore_cli.output import complain, say, text
from ingest.client import Tls, send_events

LOOK_EVERY_S = 0.05
Found = TypeVar("Found")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", help="e.g. user_events")
    parser.add_argument("record", help="""one JSON object, e.g. '{"user_id": 1, "action": "click", …}'""")
    parser.add_argument(
        "--timeout", type=seconds, default=60.0, metavar="S", help="to wait for each step (default: %(default)g)"
    )


def run(args: argparse.Namespace, settings: Settings) -> int:
    project = load_project(settings.project)
    source = project.source(args.source)
    record = _record(args.record)
    zone = LandingZone.of(settings)
    with connect(project, settings) as store:
        journey = _Journey(store, zone, settings, args.timeout)
        place = journey.send(source, project, record)
        batch = journey.landed(source, place)
        reason = next((one.reason for one in zone.dead_letters_of(batch) if one.sequence == place.sequence), "")
        if reason:
            complain(f"it is a dead letter: {reason}")
            return 1
        for view in project.views_of(source):
            journey.applied(view, batch, _keys(view, record))
    return 0


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a record is: the end of its chain's name, and its position."""

    chain: str
    sequence: int


class _Journey:
    """Waits for one step after the other, and says when each was seen."""

    def __init__(self, store: Store, zone: LandingZone, settings: Settings, timeout_s: float) -> None:
        self._store, self._zone, self._settings, self._timeout_s = store, zone, settings, timeout_s
        self._began, self._never = time.monotonic(), threading.Event()

    def send(self, source: Source, project: Project, record: Mapping[str, Any]) -> _Place:
        if isinstance(source, KafkaSource):
            [view, *_] = project.views_of(source)
            values = [record.get(column) for column in view.entity.key_columns]
            key = None if None in values else entity_id(values)  # without one it is going to be a dead letter
            partition, offset = _produce(self._settings, source, key, json.dumps(record))
            self._say("kafka", f"partition {partition}, offset {offset}")
            return _Place(f"/partition={partition}", offset)
        grpc, name = self._settings.grpc, f"follow-{time.time_ns()}"
        report = send_events(
            [record], source.name, address=grpc.address, token=grpc.token, tls=Tls.of(grpc), batch_id=name
        )
        self._say("upload", report.upload_id)
        return _Place(f"/upload={report.upload_id}", 0)

    def landed(self, source: Source, place: _Place) -> Batch:
        def look() -> Batch | None:
            for batch in reversed(self._zone.batches(source.name)):
                if batch.chain.endswith(place.chain) and batch.start <= place.sequence < batch.end:
                    return batch
            return None

        batch = self._wait(look, "it has not landed; is the ingest daemon running? `featurestore status`")
        self._say("landed", batch.batch_id)
        return batch

    def applied(self, view: FeatureView, batch: Batch, keys: Keys) -> None:
        """Until the batch is in the log of a view, and pushed if anything of it is online."""
        row = self._wait(
            lambda: ledger_row(self._store.database, batch.batch_id, view.target),
            f"{view.target} has not applied it; the sensor landed_batches in Dagster says why",
        )
        self._say("logged", f"{view.name} v{view.version}, commit {row.commit_seq}, {_became(row)}")
        self._say("run", run_of(self._settings, batch.batch_id, row.applied_at.replace(tzinfo=UTC)))
        features = [view[feature.name] for feature in view.all_features if feature.online]
        if not features:
            return
        self._wait(
            lambda: row.commit_seq in self._store.online_store.pushed(view) or None,
            f"{view.target} is not pushed; the sensor online_lost in Dagster says why",
        )
        [values] = self._store.online(keys, features)
        self._say("online", ", ".join(f"{name} = {text(value.value)}" for name, value in values.items()))

    def _wait(self, look: Callable[[], Found | None], otherwise: str) -> Found:
        until = time.monotonic() + self._timeout_s
        while (found := look()) is None:
            if time.monotonic() > until:
                raise TransientError(f"waited for {self._timeout_s:g} s: {otherwise}")
            self._never.wait(LOOK_EVERY_S)
        return found

    def _say(self, step: str, what: str) -> None:
        say(f"{(time.monotonic() - self._began) * 1000:8.0f} ms  {step:<7}  {what}")


def _record(words: str) -> Mapping[str, Any]:
    try:
        record = json.loads(words)
    except ValueError as error:
        raise TerminalError(f"the record is not JSON: {error}") from error
    if not isinstance(record, dict):
        raise TerminalError("the record is a JSON object, e.g. '{\"user_id\": 1, …}'")
    return record


def _keys(view: FeatureView, record: Mapping[str, Any]) -> Keys:
    return {column: [record[column]] for column in view.entity.key_columns}


def _became(row: LedgerRow) -> str:
    return f"{row.logged} rows logged, {row.filtered} filtered, {row.quarantined} quarantined"


def _produce(settings: Settings, source: KafkaSource, key: str | None, value: str) -> tuple[int, int]:
    """Send one record; return its partition and offset."""
    answers: list[tuple[KafkaError | None, Message]] = []
    producer = Producer(
        {
            **settings.kafka.client,
            "bootstrap.servers": settings.kafka.brokers,
            "acks": "all",
            "message.timeout.ms": 10_000,
        }
    )
    try:
        producer.produce(
            settings.name(source.topic_name, "."), value, key, on_delivery=lambda *answer: answers.append(answer)
        )
        producer.flush(15)
    except KafkaException as error:
        raise StoreUnavailableError("Kafka", settings.kafka.brokers, str(error)) from error
    if not answers or answers[0][0] is not None:
        reason = answers[0][0].str() if answers and answers[0][0] else "no answer"
        raise StoreUnavailableError("Kafka", settings.kafka.brokers, reason)
    message = answers[0][1]
    partition, offset = message.partition(), message.offset()
    assert partition is not None
    assert offset is not None
    return partition, offset
