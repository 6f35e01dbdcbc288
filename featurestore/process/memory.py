"""A bound on what a process may take, so that one request cannot take the machine's memory."""

import re
import resource
from pathlib import Path

from featurestore.errors import SettingsError

_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_UNITS |= {"KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}


def parse_bytes(text: str) -> int:
    """A size as DuckDB takes it: "2GB", "512 MiB"."""
    match = re.fullmatch(r"([\d.]+)\s*([A-Za-z]*)", text.strip())
    unit = _UNITS.get(match[2].upper()) if match else None
    if match is None or unit is None:
        raise SettingsError(f"{text!r} is not a size; write e.g. 2GB")
    return int(float(match[1]) * unit)


def bound_memory(more_bytes: int) -> None:
    """Let this process map so much more than it has now; what asks for more than is left fails with out of memory.

    It counts addresses, of which threads and allocators reserve more than they use: leave room for these.
    """
    [size] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmSize")]
    wanted = int(size.split()[1]) * 1024 + more_bytes
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))
