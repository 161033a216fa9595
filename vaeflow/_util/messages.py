"""Names and reasons as errors show them: in one line, escaped and of bounded length."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


def shown(name: Any, most: int = 160) -> str:
    """Returns a name or a text, escaped where it isn't printable, and cut in the middle if long."""
    text = "".join(char if char.isprintable() else repr(char)[1:-1] for char in str(name))
    half = (most - 3) // 2
    return text if len(text) <= most else f"{text[: most - 3 - half]}...{text[-half:]}"


def listed(names: Iterable[Any], most: int = 5) -> str:
    """Returns the first few of many names, and the number of the others."""
    names = list(names)
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(f"'{shown(name, 40)}'" for name in names[:most]) + rest


def reason(error: BaseException) -> str:
    """Returns the message of an error, or its type where it has none."""
    return shown(" ".join(str(error).split())) or type(error).__name__
