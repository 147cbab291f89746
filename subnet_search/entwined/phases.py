"""A training in phases: masks may change before each of them, and each is trained by the one training loop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from accelerate import Accelerator
from rich.progress import Progress
from torch import Tensor, nn
from torch.utils.data import Dataset, Subset

from subnet_search.data import ArrayDataset
from subnet_search.ensemble import Predictor, SubnetEnsemble, recalibrate
from subnet_search.finetune import FinetuneConfig, History, finetune
from subnet_search.masks import MaskSet
from subnet_search.processes import from_main
from subnet_search.records import kept_masks

Data = Dataset[tuple[Tensor, int]]


@dataclass(frozen=True, eq=False)
class Phase:
    """A part of a training.

    Attributes:
        config: Settings of the training loop.
        masks: Gives the masks of this phase for the ensemble as it is when the phase begins; None leaves them as they
            are. Where masks change, the predictor has to be a `SubnetEnsemble`.
        recalibrate: Seed of the training images on which the statistics of normalisation layers are measured again
            before the training; None leaves them as they are.
        images: The training images that are seen, int64 `[n]`; None shows all of them.
        through: What is trained in the place of the ensemble, while the context lasts, such as one with gates; None
            trains the predictor itself.
    """

    config: FinetuneConfig
    masks: Callable[[SubnetEnsemble], MaskSet] | None = None
    recalibrate: int | None = None
    images: Tensor | None = None
    through: Callable[[SubnetEnsemble], AbstractContextManager[Predictor]] | None = None


def train_phases(
    predictor: Predictor,
    phases: Sequence[Phase],
    dataset: Data,
    folder: Path | None = None,
    *,
    teacher: nn.Module | None = None,
    accelerator: Accelerator | None = None,
    progress: Progress | None = None,
) -> History:
    """Trains a predictor in place, phase by phase, and leaves it in eval mode.

    What was interrupted goes on where it was when this is called again with a predictor and phases made in the same
    way: finished phases are read from their checkpoints, and masks once chosen are read and not chosen again, which on
    an accelerator could come out otherwise.

    Args:
        predictor: The system to train.
        phases: Its training, in order; with none it is left as it is.
        dataset: Training images (raw) and labels.
        folder: Where masks and checkpoints of the phases are kept, as `masks-0.safetensors` and `checkpoint-0.pt`;
            None keeps nothing.
        teacher: The dense network, for phases with distillation.
        accelerator: Device and processes; by default accelerate's own choice.
        progress: Bar to report to.

    Returns:
        Losses, times and samples of all phases.

    Raises:
        SubnetSearchError: as `finetune` does, and where files in the folder are damaged or of another training.
    """
    accelerator = accelerator or Accelerator()
    predictor.to(accelerator.device)
    task = progress.add_task("phases of the training", total=len(phases)) if progress and len(phases) > 1 else None
    parts = []
    for number, phase in enumerate(phases):
        bars = set(progress.task_ids) if progress else set()
        checkpoint = None if folder is None else folder / f"checkpoint-{number}.pt"
        if phase.masks is not None:
            assert isinstance(predictor, SubnetEnsemble)
            kept = None if folder is None else folder / f"masks-{number}.safetensors"
            choose, ensemble = phase.masks, predictor
            found = from_main(accelerator, lambda: kept_masks(kept, lambda: choose(ensemble)))  # noqa: B023 - called at once
            ensemble.set_masks(found)
        if phase.recalibrate is not None and not (checkpoint and checkpoint.exists()):
            recalibrate(predictor, dataset, seed=phase.recalibrate, precision=phase.config.precision)
        with _trained(phase, predictor) as trained:
            parts.append(
                finetune(
                    trained,
                    _shown(dataset, phase.images),
                    phase.config,
                    teacher=teacher,
                    checkpoint=checkpoint,
                    accelerator=accelerator,
                    progress=progress,
                )
            )
        if progress and task is not None:
            progress.advance(task)
            for done in set(progress.task_ids) - bars:
                progress.remove_task(done)
    predictor.eval()
    return joined(parts)


def joined(parts: Sequence[History]) -> History:
    """Returns the history of trainings that followed each other."""
    losses = [loss for part in parts for loss in part.losses]
    seconds = [second for part in parts for second in part.seconds]
    return History(tuple(losses), tuple(seconds), sum(part.samples_seen for part in parts))


def _trained(phase: Phase, predictor: Predictor) -> AbstractContextManager[Predictor]:
    if phase.through is None:
        return nullcontext(predictor)
    assert isinstance(predictor, SubnetEnsemble)
    return phase.through(predictor)


def _shown(dataset: Data, images: Tensor | None) -> Data:
    if images is None:
        return dataset
    return dataset.subset(images) if isinstance(dataset, ArrayDataset) else Subset(dataset, images.tolist())
