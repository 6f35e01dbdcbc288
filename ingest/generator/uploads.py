"""The task that generates a file of profiles every few seconds and uploads it."""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from featurestore.errors import TransientError
from featurestore.settings import Settings
from ingest.client import Tls, upload
from ingest.generator.labels import LabelsFile
from ingest.generator.ledger import Sent
from ingest.generator.profiles import FORMATS, SOURCE, People, Profile, Row, write_file

log = logging.getLogger(__name__)

_FIRST_LABELS = 4_000
_LABELS_PER_FILE = 20
_WAIT_S = 2.0  # before an upload is tried again


class ProfileUploader(threading.Thread):
    """Uploads files until it is told to stop, or has sent `max_files`; while the service is away it waits.

    The first file of a data directory is a history of some weeks, and comes with labels of that time; later files bring
    changes, and labels of users whose profile has landed before.
    """

    def __init__(self, settings: Settings, stopping: threading.Event, tell: Callable[[str, Sent], None]) -> None:
        super().__init__(name="uploader", daemon=True)
        self._settings, self._stopping, self._tell = settings, stopping, tell
        generator = settings.generator
        self._people = People(seed=generator.seed, users=generator.users, bad_share=generator.bad_share)
        self._labels = LabelsFile(settings.data_dir)
        self._landed: dict[int, Profile] = {}
        self.note = ""  # what it waits for

    def run(self) -> None:
        directory = self._settings.data_dir / "generator" / "files"
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        generator = self._settings.generator
        number = 0
        while not self._stopping.is_set() and (number < generator.max_files or not generator.max_files):
            began_s, now = time.monotonic(), datetime.now(UTC)
            first = not self._labels.exists()
            rows = self._people.history(now) if first else self._people.changes(generator.file_rows, now)
            path = directory / f"profiles-{time.time_ns()}.{FORMATS[number % len(FORMATS)]}"
            write_file(path, rows)
            if self._upload(path):
                self._tell(SOURCE, _sent(rows))
                self._add_labels(rows, now, first=first)
            path.unlink()
            number += 1
            self._stopping.wait(max(0.0, generator.file_every_s - (time.monotonic() - began_s)))

    def _upload(self, path: Path) -> bool:
        """Try until it has landed; False if told to stop before."""
        grpc = self._settings.grpc
        while not self._stopping.is_set():
            try:
                upload(path, SOURCE, address=grpc.address, token=grpc.token, tls=Tls.of(grpc), giving_up=self._stopping)
            except TransientError as error:
                self.note = f"waiting for the ingest service: {error}"
                log.warning("%s", self.note)
                self._stopping.wait(_WAIT_S)
            else:
                self.note = ""
                return True
        return False

    def _add_labels(self, rows: Sequence[Row], now: datetime, *, first: bool) -> None:
        if first:
            self._labels.add(self._people.labels(rows, _FIRST_LABELS, now))
        elif self._landed:
            known = list(self._landed.values())[-_LABELS_PER_FILE:]
            self._labels.add([self._people.label(profile, datetime.now(UTC)) for profile in known])
        good = sorted((row.profile for row in rows if row.kind == "good"), key=lambda profile: profile.as_of)
        self._landed |= {profile.user_id: profile for profile in good}


def _sent(rows: Sequence[Row]) -> Sent:
    sent = Sent()
    for row in sorted(rows, key=lambda row: row.profile.as_of):
        if row.kind == "bad":
            sent.bad += 1
        else:
            sent.good_one(str(row.profile.user_id), row.profile.to_json().encode(), doubtful=row.kind == "doubtful")
    return sent
