"""How a system is trained: phase by phase, each by the one training loop."""

from __future__ import annotations

from pathlib import Path

from accelerate import Accelerator

from subnet_search.baselines.system import Setup, System
from subnet_search.finetune import History, finetune


def train(system: System, setup: Setup, folder: Path | None, accelerator: Accelerator) -> History:
    """Trains a system in place and leaves its predictor in eval mode.

    Args:
        system: The system.
        setup: What it was made from.
        folder: Where the checkpoints of the phases are kept; a training that was interrupted goes on there. None
            keeps nothing.
        accelerator: Device and processes.

    Returns:
        Losses, times and samples of all phases.
    """
    predictor = system.predictor.to(accelerator.device)
    parts = []
    for number, phase in enumerate(system.phases):
        if phase.before is not None:
            phase.before(predictor)
        checkpoint = None if folder is None else folder / f"checkpoint-{number}.pt"
        parts.append(
            finetune(
                predictor,
                setup.splits.train,
                phase.config,
                teacher=setup.backbone.model,
                checkpoint=checkpoint,
                accelerator=accelerator,
                progress=setup.progress,
            )
        )
    predictor.eval()
    losses = [loss for part in parts for loss in part.losses]
    seconds = [second for part in parts for second in part.seconds]
    return History(tuple(losses), tuple(seconds), sum(part.samples_seen for part in parts))
