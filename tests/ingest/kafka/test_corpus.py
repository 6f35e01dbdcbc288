"""Every bad record of the corpus to one daemon: each is told its reason, none stops it, nothing is lost."""

import pytest

import featurestore as fs
from featurestore.settings import Settings
from tests.corpus.bad_records import BAD, GOOD, ODD, SCHEMA
from tests.ingest.kafka.conftest import USER, Topic, daemon, landed, zone_of

pytestmark = pytest.mark.services

LARGEST_BYTES = 3 << 20


def test_every_bad_record_is_a_dead_letter_with_its_reason(topic: Topic, settings: Settings) -> None:
    source = fs.KafkaSource("things", timestamp="at", schema=SCHEMA, topic=topic.name)
    project = fs.Project((fs.FeatureView("view", USER, source, [fs.Feature("amount", float)]),))
    odd, bad = list(ODD.values()), list(BAD.values())
    topic.create(max_message_bytes=str(LARGEST_BYTES))
    records = [(None, record) for record, _ in odd] + [(None, one) for record, _ in bad for one in (record, GOOD)]
    with daemon(settings, project) as service:
        topic.send(records, **{"message.max.bytes": LARGEST_BYTES})
        service.until(lambda: sum(batch.end - batch.start for batch in landed(settings, "things")) == len(records))
        service.until_ready()

    zone = zone_of(settings)
    rows = [row for batch in zone.batches("things") for row in zone.read(batch).to_pylist()]
    letters = [letter for _, letter in zone.dead_letters("things")]
    assert [row["sequence"] for row in rows] == [*range(len(odd)), *range(len(odd) + 1, len(records), 2)]
    for row, (_, expected) in zip(rows, odd, strict=False):
        assert {column: row[column] for column in expected} == expected
    assert [letter.sequence for letter in letters] == list(range(len(odd), len(records), 2))
    assert [letter.raw for letter in letters] == [record for record, _ in bad]
    assert all(reason in letter.reason for letter, (_, reason) in zip(letters, bad, strict=True))
