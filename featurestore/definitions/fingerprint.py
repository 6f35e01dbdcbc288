"""The digest of what changes a view's rows: the same declaration gives the same digest in every process."""

import ast
import inspect
import re
import textwrap
from collections.abc import Callable, Iterable
from hashlib import sha256

Part = str | Iterable["Part"] | Callable[..., object] | None


def fingerprint(*parts: Part) -> str:
    """Digest nested texts and functions (12 hex digits)."""
    digest = sha256()
    for text in _flat(parts):
        digest.update(text.encode())
        digest.update(b"\0")
    return digest.hexdigest()[:12]


def names(word: str, *parts: Part) -> bool:
    """Whether a word stands anywhere in what would be digested."""
    pattern = re.compile(rf"\b{re.escape(word)}\b", re.IGNORECASE)
    return any(pattern.search(text) for text in _flat(parts))


def _flat(part: Part) -> Iterable[str]:
    if part is None:
        yield "-"
    elif isinstance(part, str):
        yield part
    elif callable(part):
        yield _function_text(part)
    else:
        yield "("
        for inner in part:
            yield from _flat(inner)
        yield ")"


def _function_text(function: Callable[..., object]) -> str:
    """What a function says, without its name, comments, layout and docstring; the same in every version of Python."""
    try:
        source = textwrap.dedent(inspect.getsource(function))
    except (OSError, TypeError):  # typed at a prompt, or not written in Python
        return repr(getattr(function, "__qualname__", type(function)))
    try:
        tree = ast.parse(source)
    except SyntaxError:  # a lambda in the middle of an expression
        return source
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            node.name = "_"
            if ast.get_docstring(node) is not None:
                node.body = node.body[1:] or [ast.Pass()]
    return ast.unparse(tree)
