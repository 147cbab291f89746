"""Packages that only exports need: asked for when they are needed, and kept from talking about themselves."""

from __future__ import annotations

import importlib
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

from subnet_search.errors import SubnetSearchError

_WARNINGS: tuple[tuple[str, type[Warning]], ...] = (
    (r"`isinstance\(treespec, LeafSpec\)` is deprecated", FutureWarning),  # torch.export, of PyTorch's own code
    (r"`torch\.jit\.script_method` is deprecated", DeprecationWarning),  # torch.utils.mkldnn, which torchao imports
    (r"(read|open)_(text|binary) is deprecated", DeprecationWarning),  # executorch's use of importlib.resources
    (r"This API is experimental", DeprecationWarning),  # executorch's Python runtime, the only one there is
)
"""What the packages say about code that is theirs to change."""
_LOGGERS = (
    "torch.onnx._internal.exporter._registration",  # that torchvision is not there
    "torch.utils._pytree",  # how torchao registers its enums
    "torchao",  # that its GPU kernels cannot be loaded
)
"""Loggers whose warnings mean nothing to who exports a network."""


@contextmanager
def quiet() -> Iterator[None]:
    """While open, notes of the packages to their own developers are not shown."""
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        for message, category in _WARNINGS:
            warnings.filterwarnings("ignore", message, category)
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


def require(module: str, extra: str) -> ModuleType:
    """Imports a module of an optional package.

    Args:
        module: Its full name.
        extra: The extra of this package that installs it.

    Raises:
        SubnetSearchError: where it cannot be imported.
    """
    try:
        with quiet():
            return importlib.import_module(module)
    except ImportError as error:
        raise SubnetSearchError(
            f"{module} cannot be imported ({error}), expected it to be installed; run: pip install 'subnet-search[{extra}]'"
        ) from error
