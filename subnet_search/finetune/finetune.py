"""The only training loop of the project; every system differs only in the predictor and the settings handed to it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from rich.progress import Progress
from torch import Tensor, nn
from torch.utils.data import Dataset

from subnet_search.data.batches import length
from subnet_search.device import autocast, drawing
from subnet_search.ensemble import Predictor, thinned
from subnet_search.ensemble.modes import eval_mode
from subnet_search.ensemble.standing_norm import standing_statistics
from subnet_search.errors import SubnetSearchError
from subnet_search.finetune import checkpoint as checkpoints
from subnet_search.finetune.config import FinetuneConfig
from subnet_search.finetune.loss import loss_of
from subnet_search.finetune.memory_format import lay_out
from subnet_search.finetune.optimizer import make_optimizer, one_cycle
from subnet_search.finetune.order import order_of_epoch
from subnet_search.finetune.probes import probes_of
from subnet_search.finetune.rows import rows_of_epoch, seen_by_all
from subnet_search.finetune.shared_steps import SharedSteps, take_over
from subnet_search.processes import from_main
from subnet_search.tracking import count_steps


@dataclass(frozen=True)
class History:
    """What happened in training.

    Attributes:
        losses: Mean training loss of each epoch.
        seconds: Wall time of each epoch.
        samples_seen: Rows that went through the network in training: an image counts once for each member that saw
            it, the images that one row of a network with several inputs takes in count as one. Those that are made of
            the images of a step (`FinetuneConfig.probes`) count, too.
    """

    losses: tuple[float, ...]
    seconds: tuple[float, ...]
    samples_seen: int


@torch.inference_mode(False)  # gradients are what it is about, whatever the caller's mode
@torch.enable_grad()
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
    checkpoint file, and ends with the same numbers as an undisturbed one on the same machine. The file knows the
    network's architecture and masks, the settings and how many images there are: give other weights or images another
    file.

    Several processes share the rows of every step and come to what one would come to, but for rounding and for what is
    drawn on the device: what the network's own dropout leaves out, and images that members are parted on. Each calls
    this with the same arguments. The weights that count are those of the main process, which alone reads and writes the
    checkpoint.

    Args:
        ensemble: The network to train.
        dataset: Training images (raw) and labels.
        config: Settings.
        teacher: The dense network, needed where `config.distill` is positive; taken in eval mode, not trained, and
            afterwards in its own mode again.
        checkpoint: File in which the state is kept after every epoch; None keeps nothing.
        accelerator: Device and processes; by default accelerate's own choice.
        progress: Bar to report to.
        thin: Whether masked members are run as thin networks, which changes what a step costs and nothing else but
            rounding, and what the network's own dropout leaves out; by default where it is worth it
            (`subnet_search.ensemble.thinned`).

    Returns:
        Losses, times and samples.

    Raises:
        SubnetSearchError: where the loss stops being finite, a teacher is missing, labels are outside the classes, a
            loss needs all answers to an image and the network takes several in at once, all parameters are frozen,
            there are fewer images than members to split them over, a member gets too few rows for its normalisation,
            the checkpoint belongs to another run, or several processes cannot share the rows of a step.
    """
    config = config or FinetuneConfig()
    accelerator = accelerator or Accelerator()
    if config.distill > 0 and teacher is None:
        raise SubnetSearchError(
            "finetune.distill is positive, so the dense network is needed as teacher; pass teacher="
        )
    if ensemble.inputs > 1 and config.common_losses:
        raise SubnetSearchError(
            f"finetune.{config.common_losses[0]} needs every member's answer to the same images, which a network with several inputs does not get; set it to 0"
        )
    if config.epochs > 0 and not any(parameter.requires_grad for parameter in ensemble.parameters()):
        raise SubnetSearchError(
            "finetune: all parameters are frozen (requires_grad is False), expected some that can be trained; call requires_grad_() on the ensemble or on its head, or set finetune.epochs to 0"
        )
    images = length(dataset)
    order = order_of_epoch(config, images, ensemble.members, 0, ensemble.inputs)
    steps, shared = SharedSteps(accelerator, order.shape[2]), seen_by_all(config) and ensemble.inputs == 1
    device = accelerator.device
    ensemble.to(device)
    memory = lay_out(ensemble)
    optimizer = make_optimizer(ensemble, config)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, one_cycle(config, len(order)))
    losses: list[float] = []
    seconds: list[float] = []
    identity = checkpoints.fingerprint(ensemble, config, images)
    take_over(accelerator, ensemble)
    state = from_main(accelerator, lambda: _saved(checkpoint, identity, ensemble))
    if state is not None:
        ensemble.load_state_dict(state["ensemble"])
        optimizer.load_state_dict(state["optimizer"])
        schedule.load_state_dict(state["schedule"])
        losses, seconds = state["losses"], state["seconds"]
    model, optimizer = thinned(ensemble, thin), accelerator.prepare(optimizer)
    optimizer.zero_grad()  # what the caller has left there is no part of the first step
    if teacher is not None:
        teacher.to(device)
    task = progress.add_task("fine-tuning", total=config.epochs * len(order)) if progress else None
    if progress and task is not None:
        progress.update(task, completed=len(losses) * len(order))

    for epoch in range(len(losses), config.epochs):
        began = time.perf_counter()
        model.train()
        total = torch.zeros((), device=device)
        batches = rows_of_epoch(ensemble, dataset, config, epoch, images, steps, device)
        # a seed for each epoch and process: a resumed training drops what the undisturbed one would have dropped
        seed = 1_000_003 * config.seed + 1_009 * accelerator.process_index + epoch
        with eval_mode(*([teacher] if teacher is not None else [])), drawing(device, seed), _told(order):
            for number, (rows, labels) in enumerate(batches, start=epoch * len(order)):
                loss = _loss_of_step(model, teacher, rows.to(memory_format=memory), labels, config, shared, steps)
                accelerator.backward(loss)
                steps.average(ensemble.parameters())
                if accelerator.trackers:
                    (rate, *_) = schedule.get_last_lr()
                    accelerator.log({"loss/step": float(loss.detach()), "learning_rate": rate}, step=number)
                optimizer.step()
                schedule.step()
                optimizer.zero_grad()
                total += loss.detach()
                if progress and task is not None:
                    progress.advance(task)
        mean = float(total) / len(order)
        if not torch.isfinite(total):
            raise SubnetSearchError(
                f"the training loss became {mean} in epoch {epoch + 1}; lower finetune.learning_rate (now {config.learning_rate}) or use precision=fp32"
            )
        losses.append(mean)
        accelerator.log({"loss/epoch": mean}, step=(epoch + 1) * len(order) - 1)
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
    count_steps(accelerator, config.epochs * len(order))
    passes = 2 if config.probing else 1
    return History(tuple(losses), tuple(seconds), passes * len(losses) * order.numel() // ensemble.inputs)


def _saved(checkpoint: Path | None, identity: str, ensemble: Predictor) -> dict[str, Any] | None:
    """The state that an earlier run has left; None where there is none."""
    if checkpoint is None or not checkpoint.exists():
        return None
    return checkpoints.load(checkpoint, identity, ensemble)


@contextmanager
def _told(order: Tensor) -> Iterator[None]:
    """While open, a normalisation layer that gets a single value to normalise by is explained."""
    try:
        yield
    except ValueError as problem:
        if "more than 1 value per channel" not in str(problem):
            raise
        raise SubnetSearchError(
            f"a batch normalisation layer got one value per channel, expected several: each member gets {order.shape[2]} rows in a step; raise finetune.batch_size, give more images, or use finetune.mode=repeat"
        ) from problem


def _loss_of_step(
    model: Predictor,
    teacher: nn.Module | None,
    rows: Tensor,
    labels: Tensor,
    config: FinetuneConfig,
    shared: bool,
    steps: SharedSteps,
) -> Tensor:
    """Runs the members, and the teacher where there is distillation, on the images of a step."""
    with autocast(rows.device, config.precision), steps.shared():
        logits = steps.whole(model(rows, repeat=shared).float())
        guide = None
        if teacher is not None and config.distill > 0:
            with torch.no_grad():
                guide = steps.whole(teacher(rows).float().unflatten(0, (len(labels), -1))).expand_as(logits)
        probed = None
        if config.probing:
            probed = _probed(model, rows, labels, config, steps)
    return loss_of(logits, labels.expand(len(logits), -1), guide, config, probed)


def _probed(
    model: Predictor, rows: Tensor, labels: Tensor, config: FinetuneConfig, steps: SharedSteps
) -> tuple[Tensor, Tensor]:
    """What the members answer to images that are made of those of a step, and what there is to answer."""
    targets = F.one_hot(steps.part(labels)[0], len(model.card.classes)).float()
    images, targets = probes_of(rows, targets, config.probes)
    with standing_statistics(model):
        answers = steps.whole(model(images, repeat=True).float())
    return answers, steps.whole(targets.unsqueeze(0))[0]
