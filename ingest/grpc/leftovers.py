"""What a kill left of batches of events that nobody sent again: parts without a manifest, which nobody can see."""

import logging
from collections import deque
from collections.abc import Iterator
from datetime import timedelta

from featurestore.definitions.project import Project
from featurestore.definitions.source import UploadSource
from featurestore.landing.batch import utc_now
from featurestore.landing.uploads import UploadLanding
from featurestore.landing.zone import LandingZone

log = logging.getLogger(__name__)

_AT_ONCE = 500  # directories that a sweep looks into


class Leftovers:
    """Only the kill of a process leaves any: so what is there at the start is looked through, some at each sweep."""

    def __init__(self, project: Project, zone: LandingZone) -> None:
        self._project, self._zone = project, zone
        self._unseen: deque[UploadLanding] | None = None  # not listed yet

    def sweep(self, older_than_s: float) -> None:
        """Cancel what nobody has written to for so long, so that it can be removed; its id is taken from then on."""
        if self._unseen is None:
            self._unseen = deque(self._uploads())
        before = utc_now() - timedelta(seconds=older_than_s)
        for _ in range(min(_AT_ONCE, len(self._unseen))):
            upload = self._unseen.popleft()
            left_at = upload.left_at()
            if left_at is not None and left_at < before:
                log.info("removing what is left of %s: nobody has sent it again", upload.chain)
                upload.give_up(utc_now)
            elif left_at is not None:
                self._unseen.append(upload)

    def _uploads(self) -> Iterator[UploadLanding]:
        for source in self._project.sources:
            if isinstance(source, UploadSource):
                yield from self._zone.uploads(source.name)
