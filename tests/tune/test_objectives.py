"""What a study is asked for: values by hand, and what is refused."""

import pytest

from subnet_search.errors import SubnetSearchError
from subnet_search.tune.objectives import OBJECTIVES, check_objectives, directions_of, losses_of, values_of

FIGURES = {
    "cls/NLL": 0.25,
    "cls/Acc": 0.9,
    "cal/ECE": 0.02,
    "ood/noise/AUROC/entropy": 0.8,
    "ens/ErrCorr": 0.6,
    "ens/IoU": 0.3,
    "cplx/MACsRatio": 1.5,
}
VALUES = {
    "nll": 0.25, "error": 0.1, "ece": 0.02, "ood_auroc": 0.8, "error_correlation": 0.6, "mask_iou": 0.3, "macs": 1.5,
}  # fmt: skip


def test_every_objective_is_read_from_the_figures() -> None:
    assert values_of(FIGURES, tuple(OBJECTIVES), "noise") == pytest.approx(list(VALUES.values()))
    assert tuple(OBJECTIVES) == tuple(VALUES)


def test_what_is_absent_is_the_worst() -> None:
    absent = {**FIGURES, "ens/ErrCorr": None, "ens/IoU": None}
    assert values_of(absent, ("mask_iou", "error_correlation")) == [1.0, 1.0]


def test_only_what_is_better_when_it_is_higher_changes_its_sign() -> None:
    assert losses_of([0.25, 0.8], ("nll", "ood_auroc")) == [0.25, -0.8]
    assert directions_of(("nll", "ood_auroc")) == ["minimize", "maximize"]


@pytest.mark.parametrize(
    ("names", "ood", "final", "message"),
    [
        (("nll", "speed"), None, (), r"objectives are \('nll', 'speed'\), expected different ones of nll, error"),
        (("nll", "nll"), None, (), "expected different ones"),
        ((), None, (), "expected different ones"),
        (("ood_auroc",), None, (), "ood_auroc needs OOD images to choose by"),
        (("ood_auroc",), "x=npz:a", ("svhn=npz:a",), "is one of the OOD sets of the final figures, svhn=npz:a"),
    ],
)
def test_what_cannot_be_asked_for(names, ood, final, message) -> None:
    with pytest.raises(SubnetSearchError, match=message):
        check_objectives(names, ood, final)


def test_other_images_than_those_of_the_final_figures_may_be_chosen_by() -> None:
    check_objectives(("ood_auroc",), "noise=noise", ("photos=photos",))
    check_objectives(("ood_auroc",), "noise", ("photos=photos",))
