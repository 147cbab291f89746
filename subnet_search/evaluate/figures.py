"""From what the members said to every figure but the costs."""

from __future__ import annotations

from torch import Tensor

from subnet_search.ensemble.uncertainty import decompose
from subnet_search.errors import SubnetSearchError
from subnet_search.evaluate.aleatoric import human_agreement
from subnet_search.evaluate.calibration import expected_calibration_error, fit_temperature, scale
from subnet_search.evaluate.classification import accuracy, brier, check, negative_log_likelihood
from subnet_search.evaluate.diversity import disagreement, error_correlation, member_accuracy, pairwise_kl
from subnet_search.evaluate.keys import FIGURES, ood_key
from subnet_search.evaluate.ood import ood_figures, ood_scores
from subnet_search.evaluate.outputs import Outputs
from subnet_search.evaluate.selective import augrc, aurc, coverage_at_risk, error_auroc


def prediction_figures(test: Outputs, validation: Outputs | None = None) -> dict[str, float | None]:
    """Computes classification, calibration and selective prediction of the averaged probabilities.

    Args:
        test: Labelled test samples.
        validation: Labelled validation samples, on which the temperature is fitted.

    Returns:
        The keys `cls/*`, `cal/*` and `sc/*`; `cls/NLL_TS` and `cal/ECE_TS` are None without validation.

    Raises:
        SubnetSearchError: where a set is empty or a label is outside the classes.
    """
    probabilities = decompose(test.member_probabilities).probabilities
    labels = test.labels
    check(probabilities, labels)
    confidence, predicted = probabilities.max(dim=1)
    errors = predicted != labels
    scaled = None
    if validation is not None:
        fitted_on = decompose(validation.member_probabilities).probabilities
        scaled = scale(probabilities, fit_temperature(fitted_on, validation.labels))
    return {
        "cls/Acc": accuracy(probabilities, labels),
        "cls/NLL": negative_log_likelihood(probabilities, labels),
        "cls/Brier": brier(probabilities, labels),
        "cls/NLL_TS": None if scaled is None else negative_log_likelihood(scaled, labels),
        "cal/ECE": expected_calibration_error(probabilities, labels),
        "cal/ECE_TS": None if scaled is None else expected_calibration_error(scaled, labels),
        "sc/AURC": aurc(confidence, errors),
        "sc/AUGRC": augrc(confidence, errors),
        "sc/Cov@5Risk": coverage_at_risk(confidence, errors, 0.05),
        "sc/ErrAUROC": error_auroc(confidence, errors),
    }


def diversity_figures(test: Outputs, iou: float | None = None) -> dict[str, float | None]:
    """Computes how different the members are.

    Args:
        test: Labelled test samples.
        iou: Mean intersection over union of the members' masks, in [0, 1]; None where there are no masks.

    Returns:
        The keys `ens/*`, all None with one member.
    """
    members, labels = test.member_probabilities, test.labels
    return {
        "ens/MemberAcc": member_accuracy(members, labels),
        "ens/Disagreement": disagreement(members, labels),
        "ens/ErrCorr": error_correlation(members, labels),
        "ens/KL": pairwise_kl(members, labels),
        "ens/IoU": None if test.members == 1 else iou,
    }


def ood_set_figures(test: Outputs, outside: Outputs, name: str) -> dict[str, float | None]:
    """Computes how well an OOD set is told from the test set, by every criterion; the module `ood` defines them.

    Args:
        test: In-distribution test samples; labels are not used.
        outside: OOD samples; labels are not used.
        name: Name of the OOD set, without a slash.

    Returns:
        The keys `ood/NAME/*`; those of a criterion that one of the sets has no scores by are None (`ood_scores`).

    Raises:
        SubnetSearchError: where a set is empty, the name does not fit into a key, or the networks differ.
    """
    if not name or "/" in name:
        raise SubnetSearchError(f"OOD set is named {name!r}, expected a name without '/' (it becomes part of a key)")
    if outside.members != test.members:
        raise SubnetSearchError(
            f"OOD set {name!r} has outputs of {outside.members} members, the test set of {test.members}"
        )
    within, beyond = ood_scores(test), ood_scores(outside)
    found: dict[str, float | None] = {ood_key(name, figure, score): None for score in within for figure in FIGURES}
    for criterion, inside in within.items():
        far = beyond[criterion]
        if inside is not None and far is not None:
            figures = ood_figures(inside, far)
            found |= {ood_key(name, figure, criterion): value for figure, value in figures.items()}
    return found


def aleatoric_figures(test: Outputs, human_counts: Tensor | None = None) -> dict[str, float | None]:
    """Computes `aleatoric/Spearman`; None without human labels (`[sample, class]`, in the order of the test set)."""
    if human_counts is None:
        return {"aleatoric/Spearman": None}
    return {"aleatoric/Spearman": human_agreement(decompose(test.member_probabilities).aleatoric, human_counts)}
