"""What a study can be asked for, by name. All of it is measured on the validation images, never on test images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from subnet_search.errors import SubnetSearchError
from subnet_search.evaluate.keys import ood_key

Metrics = Mapping[str, float | None]
Direction = Literal["minimize", "maximize"]

DEFAULT_OBJECTIVES = ("nll", "error_correlation", "macs")
"""How good, how independent, at which cost."""


@dataclass(frozen=True)
class Objective:
    """A figure that a study improves.

    Attributes:
        read: Takes the value from the figures and the name of the OOD set; None where the figure is absent.
        worst: The worst that it can be, which stands for an absent one: where a member is never wrong, errors have no
            correlation, and a sampler must not be drawn there.
        label: What a figure calls it.
        short: What a report calls it, for somebody who has never heard of it.
        lower: Whether lower is better.
    """

    read: Callable[[Metrics, str], float | None]
    worst: float
    label: str
    short: str
    lower: bool = True


def _figure(key: str) -> Callable[[Metrics, str], float | None]:
    return lambda metrics, _: metrics[key]


def _error(metrics: Metrics, _: str) -> float | None:
    accuracy = metrics["cls/Acc"]
    return None if accuracy is None else 1.0 - accuracy


OBJECTIVES: Mapping[str, Objective] = {
    "nll": Objective(
        _figure("cls/NLL"), worst=float("inf"), label="negative log likelihood, nats", short="surprise (NLL)"
    ),
    "error": Objective(_error, worst=1.0, label="error rate", short="error rate"),
    "ece": Objective(
        _figure("cal/ECE"), worst=1.0, label="expected calibration error", short="calibration error (ECE)"
    ),
    "ood_auroc": Objective(
        lambda metrics, name: metrics[ood_key(name, "AUROC", "entropy")],
        worst=0.0,
        label="OOD detection, AUROC by entropy",
        short="foreign images (OOD AUROC)",
        lower=False,
    ),
    "error_correlation": Objective(
        _figure("ens/ErrCorr"), worst=1.0, label="error correlation of the members", short="error correlation"
    ),
    "mask_iou": Objective(_figure("ens/IoU"), worst=1.0, label="mask IoU of the members", short="mask overlap (IoU)"),
    "macs": Objective(
        _figure("cplx/MACsRatio"),
        worst=float("inf"),
        label="MACs, relative to the dense network",
        short="cost (MACs)",
    ),
}
"""Name → objective. `macs` is that of all members / that of the dense network; `ood_auroc` goes by the entropy."""


def check_objectives(names: Sequence[str], choose_ood: str | None, final_ood: Sequence[str]) -> None:
    """Refuses objectives that do not exist or lack the images that they need.

    Args:
        names: Names of the objectives.
        choose_ood: The OOD set to choose by, `NAME=SOURCE`, or the name alone of one that the caller has.
        final_ood: The OOD sets of the final figures, in the same form.

    Raises:
        SubnetSearchError: where a name is unknown or comes twice, there is none, the OOD set is missing, or it is one
            of the final figures, which would no longer be figures of images that nothing was chosen by.
    """
    unknown = [name for name in names if name not in OBJECTIVES]
    if unknown or not names or len(set(names)) < len(names):
        raise SubnetSearchError(f"objectives are {tuple(names)}, expected different ones of {', '.join(OBJECTIVES)}")
    if "ood_auroc" in names and choose_ood is None:
        raise SubnetSearchError(
            "objective ood_auroc needs OOD images to choose by; give --choose-ood NAME=SOURCE, other ones than those of the final figures"
        )
    source = (choose_ood or "").partition("=")[2]
    if source and source in {entry.partition("=")[2] for entry in final_ood}:
        raise SubnetSearchError(
            f"choose_ood {choose_ood!r} is one of the OOD sets of the final figures, {' '.join(final_ood)}; choose by other images, or leave it out of --ood"
        )


def values_of(metrics: Metrics, names: Sequence[str], ood: str = "") -> list[float]:
    """Returns the objectives of a trial.

    Args:
        metrics: What `evaluate` returned for the validation images.
        names: Names of the objectives.
        ood: Name of the OOD set to choose by.

    Returns:
        A value for each name, in its own unit, as the sampler is told.
    """
    found = []
    for name in names:
        objective = OBJECTIVES[name]
        value = objective.read(metrics, ood)
        found.append(objective.worst if value is None else value)
    return found


def losses_of(values: Sequence[float], names: Sequence[str]) -> list[float]:
    """Returns values turned so that lower is better in all of them."""
    return [value if OBJECTIVES[name].lower else -value for name, value in zip(names, values, strict=True)]


def directions_of(names: Sequence[str]) -> list[Direction]:
    """Returns `minimize` or `maximize` for each objective, as Optuna calls it."""
    return ["minimize" if OBJECTIVES[name].lower else "maximize" for name in names]
