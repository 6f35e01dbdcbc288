"""Every bad file and record of the corpus to one service: each gets its reason, none stops it, nothing is lost."""

from collections.abc import Iterator
from pathlib import Path

import pytest

import featurestore as fs
from featurestore.errors import TerminalError
from featurestore.landing.zone import LandingZone
from featurestore.settings import Settings
from ingest.client import send_events, upload
from tests.corpus.bad_files import BAD_LINES, BAD_VALUES, HEADER, LINE, REFUSED, ndjson, parquet
from tests.corpus.bad_records import BAD, GOOD, SCHEMA
from tests.ingest.grpc.conftest import USER, serving

AT_ONCE = 20  # records of a message, which has up to 4 MiB


def refused_files(directory: Path) -> Iterator[tuple[Path, str]]:
    for number, (suffix, content, reason) in enumerate(REFUSED.values()):
        path = directory / f"refused-{number}{suffix}"
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            content(path)
        yield path, reason


def files_with_a_bad_row(directory: Path) -> Iterator[tuple[Path, str]]:
    for number, (suffix, line, reason) in enumerate(BAD_LINES.values()):
        path = directory / f"line-{number}{suffix}"
        good = LINE if suffix == ".csv" else ndjson() + b"\n"
        path.write_bytes((HEADER if suffix == ".csv" else b"") + good + line + good)
        yield path, reason
    for number, (column, values, reason) in enumerate(BAD_VALUES.values()):
        path = directory / f"value-{number}.parquet"
        parquet(path, 3, **{column: values})
        yield path, reason


@pytest.mark.slow
def test_every_bad_file_gets_its_reason(address: str, settings: Settings, zone: LandingZone, tmp_path: Path) -> None:
    refused, landed = list(refused_files(tmp_path)), list(files_with_a_bad_row(tmp_path))
    assert len(refused) + len(landed) >= 60

    for path, reason in refused:
        with pytest.raises(TerminalError, match=reason):
            upload(path, "profiles", address=address, upload_id=path.stem)
        assert zone.batches("profiles") == []
    for path, reason in landed:
        report = upload(path, "profiles", address=address, upload_id=path.stem)
        assert (report.rows, report.dead_rows, report.rejected[0][0]) == (2, 1, 1), path.name
        assert reason in report.rejected[0][1]

    assert sum(zone.read(batch).num_rows for batch in zone.batches("profiles")) == 2 * len(landed)
    assert len(list(zone.dead_letters("profiles"))) == len(landed)
    assert list((settings.data_dir / "uploads").iterdir()) == []
    assert not list(settings.landing_dir.rglob("*.tmp"))


def test_every_bad_record_gets_its_reason(settings: Settings, zone: LandingZone) -> None:
    source = fs.UploadSource("things", timestamp="at", schema=SCHEMA)
    project = fs.Project((fs.FeatureView("view", USER, source, [fs.Feature("amount", float)]),))
    with serving(settings, project) as address:
        for start in range(0, len(BAD), AT_ONCE):
            bad = list(BAD.values())[start : start + AT_ONCE]
            records = [one for record, _ in bad for one in (record, GOOD)]
            report = send_events(records, "things", address=address)

            assert (report.rows, report.dead_rows) == (len(bad), len(bad))
            assert [row for row, _ in report.rejected] == list(range(0, len(records), 2))
            assert all(expected in told for (_, told), (_, expected) in zip(report.rejected, bad, strict=True))

    assert sorted(letter.raw for _, letter in zone.dead_letters("things")) == sorted(
        record for record, _ in BAD.values()
    )
