"""Every error a caller can meet, by what the caller can do about it.

FeatureStoreError
├── DefinitionError            the declaration is wrong: change the code (also a ValueError)
│   └── UnknownFeatureError    no such feature is declared there (also a KeyError)
├── TerminalError              trying again cannot help: change the input
│   ├── SettingsError          a setting is missing or not usable
│   ├── SpineError             a spine that cannot be joined
│   ├── QueryError             the database refused or failed a query; carries its message
│   ├── JobRefusedError        the database service refused a write job; carries the reason
│   ├── CorruptFileError       a landed file is not what was written
│   └── FormatError            data of a newer version of this software
└── TransientError             trying again may help
    ├── StoreUnavailableError  a service does not answer
    ├── DatabaseBusyError      the database service did not reply in time
    └── NoSpaceError           the disk is full, or below its reserve
"""


class FeatureStoreError(Exception):
    """Root of every error this library raises on purpose."""


class DefinitionError(FeatureStoreError, ValueError):
    """A declaration that cannot work; raised while the definitions module is imported, or when its SQL is bound."""


class UnknownFeatureError(DefinitionError, KeyError):
    """No feature of that name is declared there."""

    def __init__(self, name: str, where: str, near: list[str]) -> None:
        self.name, self.where, self.near = name, where, near
        hint = f"; did you mean {', '.join(map(repr, near))}?" if near else ""
        super().__init__(f"{where} has no feature {name!r}{hint}")

    def __str__(self) -> str:
        return str(self.args[0])  # KeyError would print the repr


class TerminalError(FeatureStoreError):
    """Trying again with the same input fails again."""


class SettingsError(TerminalError, ValueError):
    """A setting is missing, unknown or not usable; the message names the variable."""


class SpineError(TerminalError, ValueError):
    """A spine that cannot be joined; the message names the row or column."""


class QueryError(TerminalError):
    """The database refused or failed a query; the message is the reason."""


class JobRefusedError(TerminalError):
    """The database service refused a write job; the message is the reason."""


class CorruptFileError(TerminalError):
    """A landed file is not what was written: a bit flipped, or it was changed."""


class FormatError(TerminalError):
    """Data was written by a newer version of this software."""


class TransientError(FeatureStoreError):
    """The same call may work later."""


class StoreUnavailableError(TransientError):
    """A service does not answer at its address."""

    def __init__(self, service: str, address: str, reason: str = "") -> None:
        self.service, self.address = service, address
        why = reason.rpartition(f"{address}. ")[2].rstrip(".")  # redis-py says the address as well
        detail = f" ({why})" if why else ""
        super().__init__(f"{service} does not answer at {address}{detail}; is it started? `featurestore doctor`")


class DatabaseBusyError(TransientError):
    """The database service did not reply in time; whether the job was done is not known, resending it is safe."""

    def __init__(self, waited_s: float, waiting_jobs: int) -> None:
        self.waited_s, self.waiting_jobs = waited_s, waiting_jobs
        super().__init__(
            f"no reply from the database service after {waited_s:g} s ({waiting_jobs} jobs wait); "
            "see `featurestore status`"
        )


class NoSpaceError(TransientError):
    """The disk is full, or below its reserve."""
