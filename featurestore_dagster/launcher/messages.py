"""What a run launcher and its zygote say to each other, a message at a time."""

import msgspec

MESSAGE_BYTES = 128 * 1024


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """The first message: what to load, as Dagster's own values, serialised. Each further one is the id of a run."""

    instance: str
    repository: str
    location: str


class Reply(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Without words: the code is loaded, or the run has its process. Otherwise why it has none."""

    stale: str = ""  # the file that changed; a new zygote will do
    refused: str = ""
