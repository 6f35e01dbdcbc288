"""Logs name what an event is about in fields that programs and people find."""

import io
import json
import logging
from collections.abc import Generator

import pytest

from featurestore.errors import SettingsError
from featurestore.process.logs import FIELDS, configure

log = logging.getLogger(__name__)


@pytest.fixture
def root() -> Generator[logging.Logger]:
    """Put back as it was."""
    logger = logging.getLogger()
    handlers, level = logger.handlers[:], logger.level
    yield logger
    logger.handlers[:] = handlers
    logger.setLevel(level)


def said(root: logging.Logger, style: str) -> str:
    """What stands on stderr after an event, and one that says why it went wrong."""
    configure("info", style)
    [handler] = root.handlers
    assert isinstance(handler, logging.StreamHandler)
    stream = io.StringIO()
    handler.setStream(stream)
    log.info("landed %d rows", 3, extra={"batch_id": "clicks/a.parquet"})
    try:
        int("no number")
    except ValueError:
        log.exception("append failed", extra={"job_id": "j", "batch_ids": ["a", "b"]})
    return stream.getvalue()


def test_people_read_the_fields_behind_the_text(root: logging.Logger) -> None:
    first, second, *_ = said(root, "text").splitlines()
    assert first.endswith("  landed 3 rows  batch_id=clicks/a.parquet")
    assert second.endswith("  append failed  batch_ids=['a', 'b']  job_id=j")


def test_programs_read_an_object_a_line(root: logging.Logger) -> None:
    first, second = map(json.loads, said(root, "json").splitlines())
    assert first | {"time": ""} == {
        "time": "",
        "level": "INFO",
        "logger": __name__,
        "message": "landed 3 rows",
        "batch_id": "clicks/a.parquet",
    }
    assert first["time"].endswith("+00:00")
    assert (second["job_id"], second["batch_ids"]) == ("j", ["a", "b"])
    assert "ValueError: invalid literal" in second["exception"]


def test_no_field_hides_what_a_record_has_of_its_own() -> None:
    assert not set(FIELDS) & set(vars(logging.makeLogRecord({})))


def test_another_style_is_refused() -> None:
    with pytest.raises(SettingsError, match="FEATURESTORE_LOG_FORMAT: 'xml' is neither text nor json"):
        configure("INFO", "xml")
