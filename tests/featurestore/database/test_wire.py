"""The wire form of write jobs: what goes in comes out, and what is broken is refused by name."""

import json

import pyarrow as pa
import pytest

from featurestore.database.jobs import AppendJob, JobReply, SchemaJob
from featurestore.database.wire import decode, encode, job_id_of
from featurestore.errors import JobRefusedError, TransientError
from tests.featurestore.database.examples import SCHEMA, held, job, quarantine


def test_an_append_survives_the_wire() -> None:
    sent = job(("a", 3), ("b", 0))
    came = decode(encode(sent))
    assert isinstance(came, AppendJob)
    assert (came.job_id, came.target, came.lines) == (sent.job_id, sent.target, sent.lines)
    assert came.rows.equals(sent.rows)
    assert came.quarantined.equals(sent.quarantined)


def test_quarantined_rows_survive_the_wire() -> None:
    held_back = quarantine(held(reason="späť", row='{"a": null}'))
    sent = AppendJob("job", "activity@v1", (), job().rows, held_back)
    came = decode(encode(sent))
    assert isinstance(came, AppendJob)
    assert came.quarantined.equals(held_back)


def test_a_schema_job_survives_the_wire() -> None:
    assert decode(encode(SCHEMA)) == SCHEMA


def test_the_header_is_plain_json() -> None:
    header = json.loads(encode(job(("a", 1)))[b"header"])
    assert header["lines"][0]["batch_id"] == "a"


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        (b"kind", b"sql", "kind 'sql' is not one of append, features, schema"),
        (b"kind", b"\xff", "kind"),
        (b"header", b"{", "header"),
        (b"header", b"{}", "header: Object missing required field `job_id`"),
        (b"header", b'{"job_id": 1, "target": "t", "lines": []}', "header: Expected `str`, got `int`"),
        (b"rows", b"", "rows: not an Arrow IPC stream"),
        (b"rows", b"\xff" * 40, "rows: not an Arrow IPC stream"),
        (b"quarantined", b"nothing", "quarantined: not an Arrow IPC stream"),
    ],
)
def test_what_is_broken_is_refused_by_name(field: bytes, value: bytes, reason: str) -> None:
    with pytest.raises(JobRefusedError, match=reason.replace("(", r"\(")):
        decode({**encode(job(("a", 1))), field: value})


def test_a_missing_field_is_refused_by_name() -> None:
    fields = encode(job(("a", 1)))
    del fields[b"quarantined"]
    with pytest.raises(JobRefusedError, match="the field 'quarantined' is missing"):
        decode(fields)


def test_a_truncated_stream_never_passes_as_a_shorter_one() -> None:
    fields = encode(job(("a", 5)))
    whole = fields[b"rows"]
    for end in range(0, len(whole) - 8, 7):  # the last 8 bytes only say that the stream ends
        with pytest.raises(JobRefusedError):
            decode({**fields, b"rows": whole[:end]})


def test_the_job_id_is_found_even_in_a_header_that_cannot_be_used() -> None:
    assert job_id_of({b"header": b'{"job_id": "j", "lines": 7}'}) == "j"
    assert job_id_of({b"header": b"\xff\xfe"}) == ""
    assert job_id_of({}) == ""


def test_a_reply_survives_the_wire() -> None:
    for reply in (
        JobReply("j", (1, 2), (True, False)),
        JobReply("j", error="no"),
        JobReply("j", error="later", retry=True),
        JobReply("j"),
    ):
        assert JobReply.from_json(reply.to_json()) == reply
    with pytest.raises(JobRefusedError, match="no"):
        JobReply("j", error="no").appended()
    with pytest.raises(TransientError, match="later"):
        JobReply("j", error="later", retry=True).appended()


def test_a_schema_job_with_a_bad_name_is_refused_on_the_wire() -> None:
    header = encode(SCHEMA)[b"header"].replace(b'"view":"activity"', b'"view":"a; DROP TABLE applied"')
    with pytest.raises(JobRefusedError, match="lower_snake_case"):
        decode({b"kind": b"schema", b"header": header})


def test_tables_are_read_with_their_types() -> None:
    came = decode(encode(job(("a", 1))))
    assert isinstance(came, AppendJob)
    assert came.rows.schema.field("event_timestamp").type == pa.timestamp("us")
    assert isinstance(decode(encode(SchemaJob("s", ()))), SchemaJob)
