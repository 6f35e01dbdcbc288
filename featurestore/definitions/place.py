"""Where a value is declared, so that a message can name the line to change."""

import inspect
from pathlib import Path

_OURS = str(Path(__file__).parent)


def caller() -> str:
    """`file:line`, below the working directory if it is there, of the nearest caller that is no code of definitions."""
    frame = inspect.currentframe()
    while frame is not None and (
        frame.f_code.co_filename.startswith((_OURS, "<string>")) or frame.f_globals.get("__name__") == "dataclasses"
    ):
        frame = frame.f_back
    if frame is None:
        return "?"
    file, here = Path(frame.f_code.co_filename), Path.cwd()
    return f"{file.relative_to(here) if file.is_relative_to(here) else file}:{frame.f_lineno}"
