"""Whether a process is ready, and what is in its way."""

import threading


class Health:
    """Thread-safe; starts as "starting"."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._state, self._note = "starting", ""
        self._standing = ""

    def ready(self, note: str = "") -> None:
        """The note stands until another one is given, also when the process was not ready in between."""
        self._standing = note
        self._set("ready", note)

    def recovered(self) -> None:
        """Ready again, as it was before."""
        self._set("ready", self._standing)

    def not_ready(self, note: str) -> None:
        self._set("not ready", note)

    def _set(self, state: str, note: str) -> None:
        with self._lock:
            self._state, self._note = state, note

    @property
    def state(self) -> str:
        """starting, ready or not ready."""
        return self.snapshot()[0]

    @property
    def note(self) -> str:
        return self.snapshot()[1]

    def snapshot(self) -> tuple[str, str]:
        with self._lock:
            return self._state, self._note
