"""Run benchmarks one after the other: all of them, or the named ones. They are ratios: leave the machine to them.

python -m benchmarks [NAME ...]
"""

import argparse
import pkgutil
import subprocess
import sys

import benchmarks

HELPERS = {"__main__", "cpu", "online_data", "probes", "ratio", "server_clients"}


def main() -> None:
    names = sorted(one.name for one in pkgutil.iter_modules(benchmarks.__path__) if one.name not in HELPERS)
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(names))
    asked = parser.parse_args().names or names
    unknown = sorted(set(asked) - set(names))
    if unknown:
        parser.error(f"there is no benchmark {unknown[0]!r}; there are {', '.join(names)}")
    failed: list[str] = []
    for name in asked:
        print(f"\n== {name}", flush=True)
        if subprocess.run([sys.executable, "-m", f"benchmarks.{name}"], check=False).returncode:
            failed.append(name)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
