"""The course of a training for TensorBoard, through accelerate's trackers."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from accelerate import Accelerator
from accelerate.tracking import TensorBoardTracker, on_main_process

from subnet_search.errors import SubnetSearchError

Log = Literal["none", "tensorboard"]


class Curves(TensorBoardTracker):  # type: ignore[misc] # accelerate has no types
    """One line for all trainings that follow each other, such as the phases of a search that trains.

    Its file is begun with the first value. When a run continues, what an interrupted epoch had written is hidden.

    Attributes:
        before: Steps of the trainings that have ended.
    """

    before = 0
    writer: Any = None

    @on_main_process  # type: ignore[untyped-decorator] # as above
    def log(self, values: dict[str, float], step: int | None = None, **named: Any) -> None:
        """Writes values of a step of the present training."""
        number = self.before + (step or 0)
        if self.writer is None:
            self.init_kwargs["purge_step"] = number
            self.start()
        super().log(values, step=number, **named)

    @on_main_process  # type: ignore[untyped-decorator] # as above
    def finish(self) -> None:
        """Closes the file."""
        if self.writer is not None:
            super().finish()


def check_log(log: Log) -> None:
    """Raises where the package for a log is not installed."""
    if log == "tensorboard" and importlib.util.find_spec("tensorboard") is None:
        raise SubnetSearchError(
            "--log tensorboard needs the package tensorboard, which is not installed; run pip install 'subnet-search[tensorboard]'"
        )


@contextmanager
def tracked(accelerator: Accelerator, log: Log, folder: Path, name: str = "training") -> Iterator[None]:
    """Writes loss and learning rate of all trainings with an accelerator while the block lasts.

    Args:
        accelerator: What the trainings are given.
        log: `none` writes nothing.
        folder: Where `tensorboard --logdir` is to look.
        name: Name of the line there.

    Raises:
        SubnetSearchError: where the package is not installed.
    """
    check_log(log)
    if log == "none":
        yield
        return
    curves = Curves(name, folder)
    accelerator.trackers.append(curves)
    try:
        yield
    finally:
        accelerator.trackers.remove(curves)
        curves.finish()


def count_steps(accelerator: Accelerator, steps: int) -> None:
    """Says that a training of so many steps has ended; the next one's steps are counted from there."""
    for tracker in accelerator.trackers:
        if isinstance(tracker, Curves):
            tracker.before += steps
