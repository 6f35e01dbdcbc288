"""Every bad file of the corpus to one service: each is told its reason, none stops it, nothing is lost."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from featurestore.errors import TerminalError
from featurestore.landing.zone import LandingZone
from featurestore.settings import Settings
from ingest.client import upload
from tests.corpus.bad_files import BAD_LINES, BAD_VALUES, HEADER, LINE, REFUSED, ndjson, parquet


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
