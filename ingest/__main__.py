"""python -m ingest kafka | grpc | generator"""

import os
import sys
from importlib import import_module

from featurestore.process.logs import configure
from featurestore.settings import Settings

_DAEMONS = ("kafka", "grpc", "generator")


def main() -> int:
    if len(sys.argv) != 2 or sys.argv[1] not in _DAEMONS:
        sys.stderr.write(f"usage: python -m ingest {' | '.join(_DAEMONS)}\n")
        return 2
    settings = Settings.from_env(os.environ)  # noqa: TID251  # an entry point
    configure(settings.log_level, settings.log_format)
    # Only the chosen one is imported: each has clients of its own, and memory that the others need not pay.
    return import_module(f"ingest.{sys.argv[1]}.daemon").main(settings)


if __name__ == "__main__":
    sys.exit(main())
