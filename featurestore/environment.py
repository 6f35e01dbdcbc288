"""Takes groups of settings out of variables, and says which variable is wrong or unknown."""

import tomllib
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from featurestore.errors import SettingsError

PREFIX = "FEATURESTORE_"
PYPROJECT = "pyproject.toml"  # of a project of one's own: [tool.featurestore] project = "module:NAME"

Group = TypeVar("Group")


def read_env_file(path: Path) -> dict[str, str]:
    """Read NAME=VALUE lines; a missing file is empty."""
    try:
        lines = path.read_text().splitlines()
    except FileNotFoundError:
        return {}
    pairs = (line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))
    return {name.strip(): value.strip() for name, value in pairs}


def read_pyproject(file: Path) -> dict[str, str]:
    """The project that the directory declares, so that every command in it knows which one is meant."""
    try:
        table = tomllib.loads(file.read_text()).get("tool", {}).get("featurestore", {})
    except FileNotFoundError:
        return {}
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{file}: {error}") from error
    unknown = sorted(table.keys() - {"project"})
    if unknown:
        raise SettingsError(f"{file}, [tool.featurestore]: {unknown[0]!r} is not known; it has `project` alone")
    return {f"{PREFIX}PROJECT": str(table["project"])} if table else {}


class EnvReader:
    """Takes groups out of variables and remembers which names it knows."""

    def __init__(self, values: Mapping[str, str]) -> None:
        self._values = values
        self.known: set[str] = set()
        self._open: list[str] = []  # prefixes under which any name is allowed

    def group(self, cls: type[Group], prefix: str) -> Group:
        hints = get_type_hints(cls)
        given: dict[str, Any] = {}
        for one in fields(cls):  # type: ignore[arg-type]  # Group is always a dataclass here
            kind, name = hints[one.name], f"{prefix}{one.name.upper()}"
            if is_dataclass(kind):
                given[one.name] = self.group(kind, f"{name}_")  # type: ignore[type-var]
            elif kind == Mapping[str, str]:
                self._open.append(f"{name}_")
                given[one.name] = {
                    key.removeprefix(f"{name}_").lower().replace("_", "."): value
                    for key, value in self._values.items()
                    if key.startswith(f"{name}_")
                }
            elif (text := self._text(name)) is not None:
                given[one.name] = _parse(text, kind, name)
        return cls(**given)

    def refuse_unknown(self) -> None:
        for name in self._values:
            if name not in self.known and not name.startswith(tuple(self._open)):
                near = get_close_matches(name, self.known, n=1)
                hint = f"; did you mean {near[0]}?" if near else ""
                raise SettingsError(f"{name} is not a setting{hint} (see .env.example)")

    def _text(self, name: str) -> str | None:
        self.known |= {name, f"{name}_FILE"}
        if name in self._values:
            return self._values[name]
        path = self._values.get(f"{name}_FILE")
        if path is None:
            return None
        try:
            return Path(path).read_text().strip()
        except OSError as error:
            raise SettingsError(f"{name}_FILE: cannot read {path}: {error.strerror}") from error


def _parse(text: str, kind: type, name: str) -> object:
    try:
        value = kind(text)
    except ValueError as error:
        raise SettingsError(f"{name}: {text!r} is not {'a number' if kind is float else 'a whole number'}") from error
    if kind in {int, float} and value < 0:
        raise SettingsError(f"{name}: {text} is negative")
    return value
