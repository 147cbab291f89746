"""The command line that repeats a job: what its settings look like as options."""

from __future__ import annotations

import dataclasses
import shlex
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from subnet_search.settings import Flat


def command_of(name: str, config: Any) -> str:
    """Writes the command for a dataclass of settings; only what differs from the defaults is named.

    Args:
        name: The command, such as `run`.
        config: Settings that can be made without arguments, with `out`; it becomes a new folder beside the old one,
            because a finished job is not done again.

    Returns:
        A line for a POSIX shell.
    """
    fresh = dataclasses.replace(config, out=Path(f"{config.out}-again"))
    words = list(_options(fresh, type(config)(), ""))
    return shlex.join(["subnet-search", name, *words])


def settings_of(config: Any) -> list[tuple[str, str, bool]]:
    """Lists all settings under their names on the command line.

    Args:
        config: As for `command_of`.

    Returns:
        Name, value in words, and whether it differs from the default.
    """
    usual = {name: value for name, _, value in _flat(type(config)(), "")}
    return [(name, " ".join(_words(value)) or "none", value != usual[name]) for name, _, value in _flat(config, "")]


def _options(config: Any, default: Any, prefix: str) -> Iterator[str]:
    usual = {name: value for name, _, value in _flat(default, prefix)}
    for name, switch, value in _flat(config, prefix):
        if value == usual[name]:
            continue
        if isinstance(value, bool):
            yield f"--{name if value else switch}"
        else:
            yield from (f"--{name}", *_words(value))


def _flat(config: Any, prefix: str) -> Iterator[tuple[str, str, Any]]:
    """Yields the name of each option, the name that switches it off where it is a switch, and its value."""
    hints = typing.get_type_hints(type(config), include_extras=True)
    for field in dataclasses.fields(config):
        value, name = getattr(config, field.name), field.name.replace("_", "-")
        if dataclasses.is_dataclass(value):
            flat = Flat in getattr(hints[field.name], "__metadata__", ())
            yield from _flat(value, prefix if flat else f"{prefix}{name}.")
        else:
            yield prefix + name, f"{prefix}no-{name}", value


def _words(value: Any) -> list[str]:
    return [str(item) for item in value] if isinstance(value, tuple | list) else [str(value)]
