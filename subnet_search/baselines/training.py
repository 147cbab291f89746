"""How a system is trained: phase by phase, each by the one training loop."""

from __future__ import annotations

from pathlib import Path

from accelerate import Accelerator

from subnet_search.baselines.system import Setup, System
from subnet_search.entwined import train_phases
from subnet_search.finetune import History


def train(system: System, setup: Setup, folder: Path | None, accelerator: Accelerator) -> History:
    """Trains a system in place and leaves its predictor in eval mode.

    Args:
        system: The system.
        setup: What it was made from.
        folder: Where masks and checkpoints of the phases are kept; a training that was interrupted goes on there. None
            keeps nothing.
        accelerator: Device and processes.

    Returns:
        Losses, times and samples of all phases.
    """
    return train_phases(
        system.predictor,
        system.phases,
        setup.splits.train,
        folder,
        teacher=setup.backbone.model,
        accelerator=accelerator,
        progress=setup.progress,
    )
