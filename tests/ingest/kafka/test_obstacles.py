"""The Kafka daemon against a real broker, when something comes in its way: nothing is lost, and it says what it is."""

import shutil
import threading
from collections import namedtuple
from datetime import timedelta

import pytest
from confluent_kafka import Consumer, TopicPartition

from featurestore.landing.batch import utc_now
from featurestore.landing.schema import landed_schema
from featurestore.landing.zone import LandingZone
from featurestore.settings import Settings
from ingest.kafka.backlog import Standing
from tests.ingest.kafka.conftest import (
    Topic,
    assert_kept,
    daemon,
    landed,
    numbers,
    project,
    rows_in,
    with_ingest,
    with_kafka,
)

pytestmark = pytest.mark.services


def test_a_missing_topic_is_waited_for(topic: Topic, settings: Settings) -> None:
    with daemon(settings, project(topic.name)) as service:
        service.step()
        service.step()
        assert service.health.state == "not ready"
        assert topic.name in service.health.note

        topic.create()
        topic.send_numbers(3)
        service.until(lambda: rows_in(settings) == 3)
        service.until_ready()


def test_a_kafka_that_does_not_answer_is_waited_for(settings: Settings) -> None:
    with daemon(with_kafka(settings, brokers="127.0.0.1:1"), project("t")) as service:
        service.until(lambda: bool(service.errors))
        assert "Kafka does not answer at 127.0.0.1:1" in service.errors[0]
        assert service.health.state == "not ready"


def test_a_topic_that_is_gone_is_missed(topic: Topic, settings: Settings) -> None:
    topic.create()
    with daemon(settings, project(topic.name)) as service:
        service.until_ready()
        topic.delete()
        service.until(lambda: "waiting for the topic" in service.health.note)


def test_who_comes_second_is_fenced_and_goes_on_behind_the_winner(topic: Topic, settings: Settings) -> None:
    topic.create()
    with daemon(with_ingest(settings, batch_age_s=1.0), project(topic.name)) as service:
        service.until_ready()
        topic.send_numbers(10)
        [one] = list(service.service.assignment)
        service.until(lambda: one.buffer is not None and one.buffer.records == 10)
        winner = LandingZone(settings.landing_dir).publish(  # as a zombie that read only four of them
            one.chain,
            landed_schema(one.source).empty_table(),
            source=one.source.name,
            start=0,
            end=4,
            schema_version="",
            previous=None,
            absent_rows=4,
        )
        assert winner.batch.end == 4  # pyright: ignore[reportAttributeAccessIssue]

        service.until(lambda: rows_in(settings) == 6)

        assert service.registry.get_sample_value("fs_ingest_fenced_total", {"source": "source_0"}) == 1
    assert numbers(settings) == [4, 5, 6, 7, 8, 9]
    assert_kept(settings)


@pytest.mark.parametrize("count", [3, 10, 25])
def test_a_topic_that_is_created_again_is_another_generation(topic: Topic, settings: Settings, count: int) -> None:
    topic.create()
    topic.send_numbers(10)
    with daemon(settings, project(topic.name)) as service:
        service.until(lambda: rows_in(settings) == 10)

        topic.delete()
        topic.create()
        topic.send_numbers(count, 100)

        service.until(lambda: rows_in(settings) == 10 + count, within_s=60)
        service.until_ready()
    assert len({batch.chain for batch in landed(settings)}) == 2
    assert sorted(numbers(settings)) == [*range(10), *range(100, 100 + count)]
    assert_kept(settings)


def test_what_is_read_of_a_recreated_topic_does_not_land_in_the_old_generation(
    topic: Topic, settings: Settings
) -> None:
    topic.create()
    topic.send_numbers(10)
    with daemon(with_ingest(settings, batch_age_s=3600.0), project(topic.name)) as service:
        assignment = service.service.assignment
        service.until(lambda: sum(buffer.records for _, buffer in assignment.reading()) == 10)
        [one] = list(assignment)
        topic.delete()
        topic.create()
        topic.send_numbers(5, 100)

        assignment.land([one])  # as if it were due before the daemon has looked

        assert rows_in(settings) == 0
        assert one.buffer is None


def test_what_retention_took_before_the_first_read_is_a_gap(topic: Topic, settings: Settings) -> None:
    topic.create()
    topic.send_numbers(30)
    topic.admin.delete_records([TopicPartition(topic.name, 0, 12)])[TopicPartition(topic.name, 0, 12)].result(15)

    with daemon(settings, project(topic.name)) as service:
        service.until(lambda: rows_in(settings) == 18)

    gap = landed(settings)[0]
    assert (gap.start, gap.end, gap.absent_rows) == (0, 12, 12)
    assert_kept(settings)


def test_what_retention_took_while_reading_is_a_gap(topic: Topic, settings: Settings) -> None:
    topic.create()
    topic.send_numbers(10)
    slow = with_kafka(settings, client={"queued.min.messages": "1", "fetch.message.max.bytes": "200"})
    with daemon(slow, project(topic.name)) as service:
        service.until(lambda: rows_in(settings) == 10)
        service.service._hold_back(trouble=True)  # paused: nothing is fetched ahead
        topic.send_numbers(100, 10)
        topic.admin.delete_records([TopicPartition(topic.name, 0, 90)])[TopicPartition(topic.name, 0, 90)].result(15)

        service.until(lambda: numbers(settings)[-1] == 109)

    gaps = sum(batch.absent_rows for batch in landed(settings))
    assert gaps > 0
    assert rows_in(settings) + gaps == 110
    assert_kept(settings)


def test_what_was_taken_before_retention_overtook_is_landed(topic: Topic, settings: Settings) -> None:
    topic.create()
    slow = with_kafka(settings, client={"queued.min.messages": "1", "fetch.message.max.bytes": "200"})
    with daemon(with_ingest(slow, batch_age_s=3600.0), project(topic.name)) as service:
        service.until_ready()
        topic.send_numbers(10)
        assignment = service.service.assignment
        service.until(lambda: sum(buffer.records for _, buffer in assignment.reading()) == 10)
        service.service._hold_back(trouble=True)
        topic.send_numbers(100, 10)
        topic.admin.delete_records([TopicPartition(topic.name, 0, 90)])[TopicPartition(topic.name, 0, 90)].result(15)

        service.until(lambda: sum(buffer.records for _, buffer in assignment.reading()) == 20)
        service.service.drain()
    assert numbers(settings) == [*range(10), *range(90, 110)]
    assert_kept(settings)


def test_a_kafka_that_ends_before_the_tail_is_not_read(topic: Topic, settings: Settings) -> None:
    topic.create()
    topic.send_numbers(10)
    with daemon(settings, project(topic.name)) as service:
        service.until(lambda: rows_in(settings) == 10)
        [one] = list(service.service.assignment)
    LandingZone(settings.landing_dir).publish(
        one.chain,
        landed_schema(one.source).empty_table(),
        source=one.source.name,
        start=10,
        end=1_000,
        schema_version="",
        previous=one.previous,
        absent_rows=990,
    )

    with daemon(settings, project(topic.name)) as service:
        service.until(lambda: "right Kafka" in service.health.note)
        topic.send_numbers(10, 10)
        service.step()
        assert service.health.state == "not ready"
    assert rows_in(settings) == 10


def test_a_damaged_tail_holds_up_its_partition_alone_until_it_is_restored(topic: Topic, settings: Settings) -> None:
    topic.create(partitions=2)
    topic.send_numbers(100)
    with daemon(settings, project(topic.name)) as service:
        service.until(lambda: rows_in(settings) == 100)
    tail = max((batch for batch in landed(settings) if batch.chain.endswith("=0")), key=lambda batch: batch.start)
    path = settings.landing_dir / tail.batch_id
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])
    topic.send_numbers(100, 100)

    with daemon(settings, project(topic.name)) as service:
        service.until(lambda: "restore it from a backup" in service.health.note)
        service.until(lambda: any(batch.chain.endswith("=1") and batch.start > 0 for batch in landed(settings)))
        path.write_bytes(whole)
        service.until(lambda: rows_in(settings) == 200)
        service.until_ready()
    assert sorted(numbers(settings)) == list(range(200))
    assert_kept(settings)


def test_a_client_that_hangs_when_it_is_closed_does_not_keep_the_daemon(
    topic: Topic, settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("ingest.kafka.daemon._LEAVE_S", 0.5)
    topic.create()
    released = threading.Event()
    with daemon(settings, project(topic.name)) as service:
        service.until_ready()
        consumer = service.service._consumer
        service.service._consumer = Hanging(consumer, released)  # pyright: ignore[reportAttributeAccessIssue]
        service.service.stop()
        assert "Kafka's client did not end" in caplog.text
        released.set()
        service.service._started = False


class Hanging:
    """A consumer whose `close` waits."""

    def __init__(self, consumer: Consumer, released: threading.Event) -> None:
        self._consumer, self._released = consumer, released

    def __getattr__(self, name: str) -> object:
        return getattr(self._consumer, name)

    def close(self) -> None:
        self._released.wait(60)
        self._consumer.close()


def test_a_full_disk_pauses_and_loses_nothing(
    topic: Topic, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    topic.create()
    with daemon(with_ingest(settings, disk_reserve_bytes=1), project(topic.name)) as service:
        service.until_ready()
        monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(1, 1, 0))
        topic.send_numbers(100)
        service.until(lambda: any("left on the disk" in error for error in service.errors))
        topic.send_numbers(100, 100)
        service.step()
        assert service.health.state == "not ready"
        assert all(one.paused for one, _ in service.service.assignment.reading())
        assert rows_in(settings) == 0

        monkeypatch.undo()
        service.until(lambda: rows_in(settings) == 200)
        service.until_ready()
    assert numbers(settings) == list(range(200))
    assert_kept(settings)


def test_what_is_let_go_while_it_is_paused_is_read_again(topic: Topic, settings: Settings) -> None:
    topic.create()
    with daemon(settings, project(topic.name)) as service:
        service.until_ready()
        service.service._hold_back(trouble=True)
        [one] = list(service.service.assignment)
        service.service.assignment.let_go(one)  # fenced, taken by the group, created again

        topic.send_numbers(10)
        service.until(lambda: rows_in(settings) == 10)
    assert_kept(settings)


def test_too_much_that_waits_to_be_processed_pauses(topic: Topic, settings: Settings) -> None:
    topic.create()
    waiting = [101]
    with daemon(with_ingest(settings, pending_bytes=100), project(topic.name), lambda: Standing(waiting[0])) as service:
        service.until(lambda: service.health.note.startswith("paused"))
        topic.send_numbers(10)
        for pending in (101, 100, 51):  # it goes on at half of the bound
            waiting[0] = pending
            service.step()
        assert rows_in(settings) == 0

        waiting[0] = 50
        service.until(lambda: rows_in(settings) == 10)


def test_damage_that_is_found_behind_the_tail_is_told(topic: Topic, settings: Settings) -> None:
    topic.create()
    topic.send_numbers(10)
    with daemon(settings, project(topic.name), lambda: Standing(alarms=("a is damaged",))) as service:
        service.until(lambda: rows_in(settings) == 10)  # which goes on
        service.until(lambda: service.health.note == "a is damaged")
        assert service.health.state == "not ready"


def test_a_wrong_clock_stops_instead_of_refusing_everything(
    topic: Topic, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic.create()
    with daemon(settings, project(topic.name)) as service:
        service.until_ready()
        monkeypatch.setattr("ingest.kafka.daemon.utc_now", lambda: utc_now() - timedelta(hours=2))
        topic.send_numbers(30)
        service.until(lambda: any("clock" in error for error in service.errors))
        assert service.health.state == "not ready"
        assert landed(settings) == []

        monkeypatch.undo()
        service.until(lambda: rows_in(settings) == 30)


def test_a_clock_far_behind_the_last_batch_stops(
    topic: Topic, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic.create()
    topic.send_numbers(10)
    with daemon(settings, project(topic.name)) as service:
        service.until(lambda: rows_in(settings) == 10)
        monkeypatch.setattr("ingest.kafka.assignment.utc_now", lambda: utc_now() - timedelta(minutes=6))
        topic.send_numbers(10, 10)
        service.until(lambda: any("last batch landed at" in error for error in service.errors))
        assert rows_in(settings) == 10

        monkeypatch.undo()
        service.until(lambda: rows_in(settings) == 20)
    assert_kept(settings)
