"""The Kafka daemon against a real broker: what it lands, when, and who of a group does."""

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin._config import AlterConfigOpType, ConfigEntry, ConfigResource

from featurestore.errors import SettingsError
from featurestore.settings import Settings
from tests.ingest.kafka.conftest import (
    Topic,
    assert_kept,
    daemon,
    in_background,
    landed,
    numbers,
    project,
    record,
    rows_in,
    with_ingest,
    with_kafka,
    zone_of,
)
from tests.ingest.zombies import patiently
from tests.services import Azurite

pytestmark = pytest.mark.services


@pytest.fixture(params=["disk", "azure"])
def lying(request: pytest.FixtureRequest, settings: Settings, topic: Topic) -> Settings:
    """With a landing zone on the disk, and in Azure Blob Storage."""
    if request.param == "disk":
        return settings
    azurite: Azurite = request.getfixturevalue("azurite")
    return replace(settings, azure=replace(azurite.settings, landing_container=f"landing-{topic.name}"))


def test_records_land_in_order_with_their_dead_letters(topic: Topic, lying: Settings) -> None:
    settings = lying
    topic.create()
    topic.send([(b"1", record(1, 0)), (b"1", b"{"), (b"1", None), (b"2", record(1, 1)), (None, record(3, 2))])

    with daemon(settings, project(topic.name)) as service:
        service.until(lambda: bool(landed(settings)))
        service.until_ready()

        assert numbers(settings) == [0, 2]
        letters = [letter for _, letter in zone_of(settings).dead_letters()]
        assert [(one.sequence, one.key, one.raw) for one in letters] == [
            (1, b"1", b"{"),
            (2, b"1", b""),
            (3, b"2", letters[2].raw),
        ]
        assert [one.reason for one in letters[1:]] == ["no value", "the Kafka key is not the text of user_id"]
        assert (service.counted("landed"), service.counted("dead_letter")) == (2, 3)
    assert_kept(settings)


def test_bad_records_alone_move_the_tail(topic: Topic, settings: Settings) -> None:
    topic.create()
    topic.send([(b"1", b"x")] * 10)

    with daemon(settings, project(topic.name)) as service:
        service.until(lambda: bool(landed(settings)))
    [batch] = landed(settings)
    assert (batch.rows, batch.dead_rows, batch.end) == (0, 10, 10)


def test_several_topics_and_partitions_land_side_by_side(topic: Topic, settings: Settings) -> None:
    other = Topic(f"{topic.name}-b", topic.brokers, topic.admin)
    topic.create(partitions=4)
    other.create(partitions=2)
    topic.send_numbers(2_000)
    other.send_numbers(1_000)

    with daemon(settings, project(topic.name, other.name)) as service:
        service.until(lambda: rows_in(settings) == 2_000 and rows_in(settings, "source_1") == 1_000)
        service.until_ready()
    assert sorted(numbers(settings)) == list(range(2_000))
    assert sorted(numbers(settings, "source_1")) == list(range(1_000))
    assert_kept(settings)
    assert_kept(settings, "source_1")


def test_settings_that_the_client_does_not_know_are_refused(settings: Settings) -> None:
    wrong = with_kafka(settings, client={"no.such.setting": "1"})
    with pytest.raises(SettingsError, match=r"no\.such\.setting"), daemon(wrong, project("t")):
        pass


def test_a_start_that_is_neither_end_is_refused(settings: Settings) -> None:
    with pytest.raises(SettingsError, match="START_AT"), daemon(with_kafka(settings, start_at="now"), project("t")):
        pass


def test_all_partitions_together_are_bounded(topic: Topic, settings: Settings) -> None:
    topic.create(partitions=4)
    topic.send_numbers(8_000)
    with daemon(with_ingest(settings, batch_age_s=3600.0, batch_bytes=100_000), project(topic.name)) as service:
        held: list[int] = []

        def landed_most() -> bool:
            held.append(sum(buffer.size_bytes for _, buffer in service.service.assignment.reading()))
            return rows_in(settings) >= 4_000

        service.until(landed_most)
    assert max(held) < 2 * 100_000 + 4_000 * 60  # one chunk on top


def test_a_restart_goes_on_where_it_was(topic: Topic, lying: Settings) -> None:
    settings = lying
    topic.create()
    for start in (0, 100, 200):
        topic.send_numbers(100, start)
        with daemon(settings, project(topic.name)) as service:
            service.until(lambda wanted=start + 100: rows_in(settings) == wanted)
    assert numbers(settings) == list(range(300))
    assert_kept(settings)


def test_what_was_taken_is_landed_when_the_daemon_drains(topic: Topic, settings: Settings) -> None:
    topic.create()
    with daemon(with_ingest(settings, batch_age_s=3600.0), project(topic.name)) as service:
        service.until_ready()
        topic.send_numbers(50)
        taken = service.service
        service.until(lambda: any(buffer.records == 50 for _, buffer in taken.assignment.reading()))
        assert rows_in(settings) == 0

        taken.drain()

        assert rows_in(settings) == 50


def test_a_batch_is_landed_at_its_bound_of_rows(topic: Topic, settings: Settings) -> None:
    topic.create()
    topic.send_numbers(20_000)
    with daemon(with_ingest(settings, batch_age_s=3600.0, batch_rows=5_000), project(topic.name)) as service:
        service.until(lambda: rows_in(settings) >= 15_000)
    assert all(5_000 <= batch.rows < 5_000 + 4_000 for batch in landed(settings)[:-1])


def test_a_batch_is_landed_at_its_bound_of_bytes(topic: Topic, settings: Settings) -> None:
    topic.create()
    topic.send_numbers(20_000)
    with daemon(with_ingest(settings, batch_age_s=3600.0, batch_bytes=100_000), project(topic.name)) as service:
        service.until(lambda: rows_in(settings) >= 15_000)
    assert len(landed(settings)) > 3


def test_daemons_of_one_group_share_and_take_over(topic: Topic, settings: Settings) -> None:
    topic.create(partitions=4)
    topic.send_numbers(500)
    definitions = project(topic.name)
    settings = with_kafka(settings, client={"heartbeat.interval.ms": "300"})
    with daemon(settings, definitions) as first:
        first.until(lambda: rows_in(settings) == 500)
        with daemon(settings, definitions) as second:
            with in_background(second):
                first.until(lambda: len(list(first.service.assignment)) == 2)
                first.until(lambda: len(second.service.assignment.reading()) == 2)
                topic.send_numbers(500, 500)
                first.until(lambda: rows_in(settings) == 1_000)
            with in_background(first):  # the second one stops to poll, and leaves
                second.service.drain()
                second.service.stop()
                second.service._started = False
        first.until(lambda: len(first.service.assignment.reading()) == 4)
        topic.send_numbers(500, 1_000)
        first.until(lambda: rows_in(settings) == 1_500)
    assert sorted(numbers(settings)) == list(range(1_500))
    assert_kept(settings)


def test_the_newer_group_protocol_works_too(topic: Topic, settings: Settings) -> None:
    topic.create(partitions=2)
    topic.send_numbers(100)
    definitions = project(topic.name)
    newer = with_kafka(settings, group_protocol="consumer")
    with daemon(newer, definitions) as first:
        first.until(lambda: rows_in(settings) == 100)
        with daemon(newer, definitions) as second, in_background(second):
            first.until(lambda: len(first.service.assignment.reading()) == 1)
            topic.send_numbers(100, 100)
            first.until(lambda: rows_in(settings) == 200)
    assert sorted(numbers(settings)) == list(range(200))
    assert_kept(settings)


def test_a_source_may_start_at_the_end_of_an_existing_topic(topic: Topic, settings: Settings) -> None:
    topic.create()
    topic.send_numbers(10)
    latest = with_kafka(settings, start_at="latest")
    with daemon(latest, project(topic.name)) as service:
        service.until_ready()
    topic.send_numbers(5, 10)  # while it is away: the start was settled the first time
    with daemon(latest, project(topic.name)) as service:
        service.until(lambda: rows_in(settings) == 5)
    assert numbers(settings) == [10, 11, 12, 13, 14]
    assert_kept(settings)


def test_what_compaction_removed_is_absent(topic: Topic, settings: Settings) -> None:
    topic.create(cleanup_policy="compact", segment_ms="100", min_cleanable_dirty_ratio="0.01")
    for start in range(0, 300, 100):  # each in a segment of its own
        topic.send_numbers(100, start)
        topic.send([(b"0", None)])
    with often_cleaned(topic):
        patiently(lambda: records_in(topic) < 250)
    left = records_in(topic)

    with daemon(settings, project(topic.name)) as service:
        service.until(lambda: bool(landed(settings)) and landed(settings)[-1].end == 303)

    dead = sum(batch.dead_rows for batch in landed(settings))
    assert dead >= 1  # the last null value, at least
    assert rows_in(settings) + dead == left
    assert sum(batch.absent_rows for batch in landed(settings)) == 303 - left
    assert set(numbers(settings)) >= set(range(294, 300))  # the newest of each user
    assert_kept(settings)


@contextmanager
def often_cleaned(topic: Topic) -> Generator[None]:
    """The broker looks for something to compact all the time, instead of every 15 s."""

    def set_backoff(value: str | None) -> None:
        operation = AlterConfigOpType.SET if value else AlterConfigOpType.DELETE
        entry = ConfigEntry("log.cleaner.backoff.ms", value, incremental_operation=operation)
        resource = ConfigResource(ConfigResource.Type.BROKER, "1", incremental_configs=[entry])
        topic.admin.incremental_alter_configs([resource])[resource].result(15)

    set_backoff("100")
    try:
        yield
    finally:
        set_backoff(None)


def records_in(topic: Topic) -> int:
    """How many records a consumer finds in the first partition."""
    config = {"bootstrap.servers": topic.brokers, "group.id": "x", "enable.partition.eof": True}
    consumer, found = Consumer(config), 0
    consumer.assign([TopicPartition(topic.name, 0, 0)])
    try:
        while True:
            for message in consumer.consume(500, 10):
                if message.error():
                    return found
                found += 1
    finally:
        consumer.close()


def test_aborted_transactions_are_absent(topic: Topic, settings: Settings) -> None:
    topic.create()
    producer = Producer({"bootstrap.servers": topic.brokers, "transactional.id": topic.name})
    producer.init_transactions(30)
    for n, commit in ((0, True), (1, False), (2, True)):
        producer.begin_transaction()
        for _ in range(10):
            producer.produce(topic.name, record(1, n), b"1")
        producer.flush(10)
        (producer.commit_transaction if commit else producer.abort_transaction)(30)

    with daemon(settings, project(topic.name)) as service:
        service.until(lambda: rows_in(settings) == 20)

    assert set(numbers(settings)) == {0, 2}
    assert sum(batch.absent_rows for batch in landed(settings)) >= 11  # ten aborted, and markers in between
    assert_kept(settings)
