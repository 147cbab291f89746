"""The only training loop of the project; every system differs only in the predictor and the settings handed to it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import Accelerator
from rich.progress import Progress
from torch import Tensor, nn
from torch.utils.data import Dataset

from subnet_search.data import augment, batches
from subnet_search.data.array_dataset import check_labels
from subnet_search.data.batches import length
from subnet_search.device import autocast
from subnet_search.ensemble import Predictor, thinned
from subnet_search.errors import SubnetSearchError
from subnet_search.finetune import checkpoint as checkpoints
from subnet_search.finetune.config import FinetuneConfig
from subnet_search.finetune.loss import loss_of
from subnet_search.finetune.order import order_of_epoch, steps_of_epoch


@dataclass(frozen=True)
class History:
    """What happened in training.

    Attributes:
        losses: Mean training loss of each epoch.
        seconds: Wall time of each epoch.
        samples_seen: Rows that went through the network in training: an image counts once for each member that saw
            it, the images that one row of a network with several inputs takes in count as one.
    """

    losses: tuple[float, ...]
    seconds: tuple[float, ...]
    samples_seen: int


def finetune(
    ensemble: Predictor,
    dataset: Dataset[tuple[Tensor, int]],
    config: FinetuneConfig | None = None,
    *,
    teacher: nn.Module | None = None,
    checkpoint: Path | None = None,
    accelerator: Accelerator | None = None,
    progress: Progress | None = None,
    thin: bool | None = None,
) -> History:
    """Trains the members together, in place, and leaves the ensemble in eval mode.

    A run that was killed continues at the last finished epoch when it is called again with the same arguments and
    checkpoint file, and ends with the same numbers as an undisturbed one on the same machine.

    Args:
        ensemble: The network to train.
        dataset: Training images (raw) and labels.
        config: Settings.
        teacher: The dense network, needed where `config.distill` is positive; taken in eval mode, not trained.
        checkpoint: File in which the state is kept after every epoch; None keeps nothing.
        accelerator: Device and processes; by default accelerate's own choice.
        progress: Bar to report to.
        thin: Whether masked members are run as thin networks, which changes what a step costs and nothing else but
            rounding; by default where it is worth it (`subnet_search.ensemble.thinned`).

    Returns:
        Losses, times and samples.

    Raises:
        SubnetSearchError: where the loss stops being finite, a teacher is missing, labels are outside the classes,
            there are fewer images than members to split them over, the checkpoint belongs to another run, or there is
            more than one process.
    """
    config = config or FinetuneConfig()
    accelerator = accelerator or Accelerator()
    if config.distill > 0 and teacher is None:
        raise SubnetSearchError(
            "finetune.distill is positive, so the dense network is needed as teacher; pass teacher="
        )
    if accelerator.num_processes > 1:
        raise SubnetSearchError(
            f"fine-tuning on {accelerator.num_processes} processes is not supported: each would train on all images; start one process"
        )
    images = length(dataset)
    steps = steps_of_epoch(config, images, ensemble.members, ensemble.inputs)
    device = accelerator.device
    ensemble.to(device)
    memory = torch.channels_last if len(ensemble.card.input_shape) == 3 else torch.contiguous_format
    ensemble.to(memory_format=memory)  # type: ignore[call-overload] # the stubs know only the variant with a device
    optimizer = _optimizer(ensemble, config)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, _one_cycle(config, steps))
    losses: list[float] = []
    seconds: list[float] = []
    identity = checkpoints.fingerprint(ensemble, config, images)
    if checkpoint is not None and checkpoint.exists():
        state = checkpoints.load(checkpoint, identity, ensemble)
        ensemble.load_state_dict(state["ensemble"])
        optimizer.load_state_dict(state["optimizer"])
        schedule.load_state_dict(state["schedule"])
        losses, seconds = state["losses"], state["seconds"]
    model, optimizer = accelerator.prepare(thinned(ensemble, thin), optimizer)
    optimizer.zero_grad()  # what the caller has left there is no part of the first step
    if teacher is not None:
        teacher.to(device).eval()
    task = progress.add_task("fine-tuning", total=config.epochs * steps) if progress else None
    if progress and task is not None:
        progress.update(task, completed=len(losses) * steps)

    for epoch in range(len(losses), config.epochs):
        began = time.perf_counter()
        model.train()
        total = torch.zeros((), device=device)
        for rows, labels in _rows_of_epoch(ensemble, dataset, config, epoch, images, device):
            shared = len(labels) < ensemble.members
            loss = _loss_of_step(model, teacher, rows.to(memory_format=memory), labels, config, shared)
            accelerator.backward(loss)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            total += loss.detach()
            if progress and task is not None:
                progress.advance(task)
        mean = float(total) / max(steps, 1)
        if not torch.isfinite(total):
            raise SubnetSearchError(
                f"the training loss became {mean} in epoch {epoch + 1}; lower finetune.learning_rate (now {config.learning_rate}) or use precision=fp32"
            )
        losses.append(mean)
        seconds.append(time.perf_counter() - began)
        if checkpoint is not None and accelerator.is_main_process:
            state = {
                "fingerprint": identity,
                "ensemble": ensemble.state_dict(),
                "optimizer": optimizer.state_dict(),
                "schedule": schedule.state_dict(),
                "losses": losses,
                "seconds": seconds,
            }
            checkpoints.save(checkpoint, state)
    ensemble.eval()
    order = order_of_epoch(config, images, ensemble.members, 0, ensemble.inputs)
    return History(tuple(losses), tuple(seconds), len(losses) * order.numel() // ensemble.inputs)


def _rows_of_epoch(
    ensemble: Predictor,
    dataset: Dataset[tuple[Tensor, int]],
    config: FinetuneConfig,
    epoch: int,
    images: int,
    device: torch.device,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields prepared images and labels of each step.

    Member-major rows `[member * row, ...]` with labels `[member, row]`; where all members see the same images, these
    once, `[row, ...]` and `[1, row]`, so that they are read and changed once and the members answer to the same.
    """
    order = order_of_epoch(config, images, ensemble.members, epoch, ensemble.inputs)
    if _shared(config) and ensemble.inputs == 1:
        order = order[:, :1]
    changes = torch.Generator().manual_seed(15_485_863 * config.seed + epoch)
    repeated = ensemble.inputs > 1 or config.batch_repetition > 1
    for step, (rows, labels) in zip(order, batches(dataset, order[0].numel(), order.flatten()), strict=True):
        check_labels(labels, len(ensemble.card.classes), "finetune")
        if int(labels.min()) < 0:
            raise SubnetSearchError("finetune: some images have no label (−1), expected labels for all of them")
        changed = augment(rows, config.augment, changes)
        if repeated:  # an image that is repeated is the same image
            changed = changed[_first_places(step.flatten())]
        yield ensemble.card.prepare(changed.to(device, non_blocking=True)), labels.to(device).view(order.shape[1], -1)


def _first_places(indices: Tensor) -> Tensor:
    """For each element the first place at which its value stands: [7, 5, 7] → [0, 1, 0]."""
    values, inverse = indices.unique(return_inverse=True)
    places = torch.arange(len(indices))
    first = torch.full((len(values),), len(indices)).scatter_reduce(0, inverse, places, "amin")
    return first[inverse]


def _shared(config: FinetuneConfig) -> bool:
    """Whether all members see the same images in a step."""
    return config.mode == "repeat" and not config.bagging


def _loss_of_step(
    model: nn.Module, teacher: nn.Module | None, rows: Tensor, labels: Tensor, config: FinetuneConfig, shared: bool
) -> Tensor:
    """Runs the members, and the teacher where there is distillation, on the images of a step."""
    with autocast(rows.device, config.precision):
        logits = model(rows, repeat=shared)
        guide = None
        if teacher is not None and config.distill > 0:
            with torch.no_grad():
                guide = teacher(rows).unflatten(0, (len(labels), -1)).expand_as(logits)
    return loss_of(logits, labels.expand(len(logits), -1), guide, config)


def _optimizer(ensemble: Predictor, config: FinetuneConfig) -> torch.optim.Optimizer:
    """SGD that decays weight matrices only: norms, biases and the members' factors of shared weights (`alpha`, `gamma`)
    gain nothing from it, and masked ones would drift.
    """  # noqa: D205 - one sentence
    names = ("bias", "alpha", "gamma")
    spared = [p for n, p in ensemble.named_parameters() if n.endswith(names) or _is_norm(ensemble, n)]
    chosen = {id(p) for p in spared}
    decayed = [p for p in ensemble.parameters() if id(p) not in chosen]
    parameters = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": spared, "weight_decay": 0.0}]
    return torch.optim.SGD(parameters, lr=config.learning_rate, momentum=config.momentum, nesterov=config.momentum > 0)


def _is_norm(ensemble: Predictor, parameter: str) -> bool:
    norms = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
    return isinstance(ensemble.get_submodule(parameter.rpartition(".")[0]), norms)


def _one_cycle(config: FinetuneConfig, steps: int) -> Callable[[int], float]:
    """Factor of the learning rate at a step: linear up, cosine down to zero."""
    total = max(1, config.epochs * steps)
    up = max(1, round(config.warmup * total))

    def factor(step: int) -> float:
        if step < up:
            return (step + 1) / up
        return 0.5 * (1.0 + math.cos(math.pi * min(1.0, (step - up) / max(1, total - up))))

    return factor
