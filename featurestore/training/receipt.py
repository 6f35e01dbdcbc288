"""What a training set was made of: enough to make it again, byte for byte, and to see that it is the same."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from featurestore.errors import FormatError, TerminalError
from featurestore.training.pit_plan import PitPlan
from featurestore.training.statistics import ColumnStatistics

FORMAT = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewInput:
    """What a view's log gave."""

    code_digest: str
    rows: int  # that were read; more than mattered


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """The plan, the moment, the spine's digest; and what came out."""

    plan: PitPlan
    commit_seq: int
    time: str  # the spine's column
    time_zone: str | None
    spine: str  # sha256 of the spine's content
    inputs: Mapping[str, ViewInput]
    statistics: Mapping[str, ColumnStatistics]
    rows: int
    sha256: str  # of the training set's content
    spine_file: str = ""  # where the spine came from, if from a file; relative to the receipt's

    @property
    def features(self) -> tuple[str, ...]:
        return tuple(name for _, name in self.plan.features)

    @property
    def versions(self) -> dict[str, int]:
        return {view.view: view.version for view in self.plan.views}

    @property
    def known_at(self) -> str:
        return str(self.plan.known_at)

    def to_json(self) -> bytes:
        """What people look for first, then everything."""
        summary = {"features": self.features, "versions": self.versions, "known_at": self.known_at}
        whole = {"format": FORMAT, **summary, **msgspec.to_builtins(self)}
        return msgspec.json.format(msgspec.json.encode(whole))

    @classmethod
    def from_json(cls, data: bytes) -> "Receipt":
        """Raises TerminalError when `data` is not a receipt, FormatError when it is a newer version's."""
        try:
            content = msgspec.json.decode(data, type=dict[str, Any])
            if content.get("format", 0) > FORMAT:
                raise FormatError(f"the receipt has format {content['format']}, this version reads {FORMAT}; upgrade")
            return msgspec.convert(content, cls)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise TerminalError(f"this is not the receipt of a training set: {error}") from error
