"""Settings of the training loop."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from subnet_search.data import Augmentation
from subnet_search.device import Precision
from subnet_search.errors import SubnetSearchError
from subnet_search.finetune.probes import Probes

Mode = Literal["split", "repeat", "independent"]


@dataclass(frozen=True)
class FinetuneConfig:
    """How the ensemble is trained.

    Attributes:
        epochs: Passes over the training set; in `split` each image is seen by one member in each pass. With batch
            repetition a pass has as many steps, and so as fewer images.
        batch_size: Images of one step, all members together in `split`, each member's in `repeat`.
        mode: `split` deals the images of an epoch out to the members, at the training cost of one network;
            `repeat` shows all images to every member, the same in each step; `independent` shows all images to every
            member, in an order of its own. None lets a run choose between the first two by what they cost
            (`subnet_search.finetune.mode_to_take`).
        learning_rate: Peak of the one-cycle schedule (linear warm-up, cosine decay to zero).
        warmup: Share of the steps that the warm-up takes, in [0, 1).
        momentum: Nesterov momentum of SGD.
        weight_decay: L2 penalty on weight matrices; norms and biases are spared.
        distill: Share of the loss that is distillation from the dense network (Hinton et al. 2015), in [0, 1].
        temperature: Temperature of the distillation.
        bagging: Whether each member trains on its own bootstrap of the images (Breiman 1996).
        bootstraps: Seed of the bootstraps, which last where a training goes on under another seed; None takes `seed`.
        joint: Share of the loss that is the cross-entropy of the members' mean answer instead of the mean of their own
            (Webb et al. 2021), in [0, 1]; `repeat` without bagging only, because it needs the members' answers to the
            same images.
        decorrelate: Weight of the members' pairwise residual correlation in the loss; as `joint`, `repeat` without
            bagging only.
        learn_probes: Weight of the members' mean cross-entropy on `probes` in the loss; as `joint`, `repeat` without
            bagging only, and with other images than those of the step.
        probes: Images on which the correlation is measured, and those of `learn_probes`: `images`, those of the step; or
            others that are made of them, at the cost of a further pass: `mixed` with one another, `noisy`, or `jumbled`
            beyond recognition (`subnet_search.finetune.probes`); without effect where both weights are 0.
        input_repetition: Share of the rows in which a network with several inputs sees one image in all of them, in
            [0, 1] (Havasi et al. 2021, section 3.2, ρ); without effect on other networks.
        batch_repetition: How often an image is repeated within a step (Havasi et al. 2021, section 3.2).
        augment: Random changes of the training images.
        seed: Seed of order, bootstraps and augmentation.
        precision: Arithmetic of the forward passes.

    Raises:
        SubnetSearchError: where a setting has no such value.
    """

    epochs: int = 10
    batch_size: int = 128
    mode: Mode | None = "split"
    learning_rate: float = 0.05
    warmup: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    distill: float = 0.0
    temperature: float = 3.0
    bagging: bool = False
    bootstraps: int | None = None
    joint: float = 0.0
    decorrelate: float = 0.0
    learn_probes: float = 0.0
    probes: Probes = "images"
    input_repetition: float = 0.0
    batch_repetition: int = 1
    augment: Augmentation = "none"
    seed: int = 0
    precision: Precision = "auto"

    @property
    def common_losses(self) -> tuple[str, ...]:
        """Names of the losses in use that need every member's answer to the same images."""
        return tuple(name for name in ("joint", "decorrelate", "learn_probes") if getattr(self, name) > 0)

    @property
    def probing(self) -> bool:
        """Whether the members answer to other images than those of the step, too, in a pass of their own."""
        return self.probes != "images" and (self.decorrelate > 0 or self.learn_probes > 0)

    @property
    def bootstrap_seed(self) -> int:
        """Seed of the bootstraps."""
        return self.seed if self.bootstraps is None else self.bootstraps

    def __post_init__(self) -> None:
        for name, choices in (
            ("mode", Mode),
            ("augment", Augmentation),
            ("precision", Precision),
            ("probes", Probes),
        ):
            if getattr(self, name) not in get_args(choices) and not (name == "mode" and self.mode is None):
                raise SubnetSearchError(
                    f"finetune.{name} is {getattr(self, name)!r}, expected one of {', '.join(get_args(choices))}"
                )
        for name, low, high in (
            ("epochs", 0, 1e9),
            ("batch_size", 1, 1e9),
            ("warmup", 0.0, 0.999),
            ("distill", 0.0, 1.0),
            ("temperature", 1e-6, 1e6),
            ("learning_rate", 0.0, 1e6),
            ("momentum", 0.0, 0.999999),
            ("weight_decay", 0.0, 1e6),
            ("joint", 0.0, 1.0),
            ("decorrelate", 0.0, 1e6),
            ("learn_probes", 0.0, 1e6),
            ("input_repetition", 0.0, 1.0),
            ("batch_repetition", 1, 1e9),
        ):
            value = getattr(self, name)
            if not low <= value <= high:
                raise SubnetSearchError(f"finetune.{name} is {value}, expected a value from {low} to {high}")
        for name in self.common_losses:
            if self.mode not in ("repeat", None) or self.bagging:
                raise SubnetSearchError(
                    f"finetune.{name} needs every member's answer to the same images; use mode=repeat without bagging"
                )
        if self.learn_probes > 0 and self.probes == "images":
            raise SubnetSearchError(
                f"finetune.learn_probes is {self.learn_probes}, but there are no other images than those of the step; set finetune.probes to mixed, noisy or jumbled"
            )
