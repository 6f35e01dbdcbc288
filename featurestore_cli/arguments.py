"""What options take, checked while they are read: a mistake is said with the usage."""

from argparse import ArgumentTypeError


def whole_number(text: str) -> int:
    """From 1."""
    if not text.isdecimal() or int(text) < 1:
        raise ArgumentTypeError(f"{text!r} is not a whole number from 1")
    return int(text)


def seconds(text: str) -> float:
    """From 0; no NaN, which no wait would reach, and no infinity."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise ArgumentTypeError(f"{text!r} is not a number of seconds")
    return value
