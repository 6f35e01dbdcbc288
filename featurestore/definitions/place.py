"""Where a value is declared, so that a message can name the line to change."""

import inspect
import traceback
from pathlib import Path

_OURS = str(Path(__file__).parent)


def caller() -> str:
    """`file:line`, below the working directory if it is there, of the nearest caller that is no code of definitions."""
    frame = inspect.currentframe()
    while frame is not None and (
        frame.f_code.co_filename.startswith((_OURS, "<string>")) or frame.f_globals.get("__name__") == "dataclasses"
    ):
        frame = frame.f_back
    return "?" if frame is None else _shown(frame.f_code.co_filename, frame.f_lineno)


def raised_at(error: BaseException) -> str:
    """`file:line` of the last of its callers that is no code of definitions, nor the import of a module."""
    frames = traceback.extract_tb(error.__traceback__)
    theirs = [one for one in frames if not one.filename.startswith((_OURS, "<"))]
    return _shown(theirs[-1].filename, theirs[-1].lineno or 0) if theirs else "?"


def _shown(filename: str, line: int) -> str:
    return f"{filename.removeprefix(f'{Path.cwd()}/')}:{line}"
