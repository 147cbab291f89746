"""Pruning in rounds, for one member and for several."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from subnet_search.ensemble import SubnetEnsemble
from subnet_search.entwined import Scorer, progressive, scorer, train_phases
from subnet_search.entwined.rounds import plan_of_widths
from subnet_search.masks import MaskSet
from subnet_search.relevance import RelevanceConfig, score_relevance
from subnet_search.search import search_masks


@given(
    pairs=st.lists(st.tuples(st.integers(1, 64), st.integers(1, 64)).map(sorted), min_size=1, max_size=4),
    rounds=st.integers(1, 7),
)
def test_widths_fall_from_round_to_round_to_the_quotas(pairs: list[list[int]], rounds: int) -> None:
    widths = {"g": max(width for _, width in pairs)}
    quotas = {"g": tuple(quota for quota, _ in pairs)}
    plan = plan_of_widths(widths, quotas, rounds)
    assert len(plan) == rounds
    assert plan[-1] == quotas
    for earlier, later in pairwise([{"g": (widths["g"],) * len(pairs)}, *plan]):
        assert all(b <= a for a, b in zip(earlier["g"], later["g"], strict=True))


def test_every_round_cuts_by_the_same_factor() -> None:
    plan = plan_of_widths({"g": 64, "whole": 8}, {"g": (16, 32), "whole": (8, 8)}, 2)
    assert plan == [{"g": (32, 45), "whole": (8, 8)}, {"g": (16, 32), "whole": (8, 8)}]


def phases_of(small, score: Scorer, images: int = 48, **changes: object):
    search = small.searching("progressive", **changes)
    return progressive(small.graph.widths, small.quotas(), search, small.training, images, score, recalibrate=1)


def noted(small) -> tuple[Scorer, list[tuple[int, MaskSet]]]:
    """A scorer with fixed scores that notes what it was asked for."""
    asked: list[tuple[int, MaskSet]] = []

    def score(ensemble: SubnetEnsemble, number: int) -> dict[str, Tensor]:
        asked.append((number, ensemble.masks))
        return small.scores(seed=number)

    return score, asked


def test_members_shrink_to_their_quotas_and_what_has_gone_stays_away(small) -> None:
    score, asked = noted(small)
    ensemble = small.intact()
    history = train_phases(ensemble, phases_of(small, score), small.data)
    found = [masks for _, masks in asked] + [ensemble.masks]
    assert [number for number, _ in asked] == [0, 1, 2]
    assert found[0].digest() == small.intact().masks.digest()
    for earlier, later in pairwise(found):
        assert all((mask <= earlier.masks[name]).all() for name, mask in later.masks.items())
        assert sum(map(sum, later.widths.values())) < sum(map(sum, earlier.widths.values()))
    assert dict(found[-1].widths) == small.quotas()
    assert found[-1].mean_iou() < found[1].mean_iou()  # they drift apart
    assert (ensemble.algorithm, len(ensemble.notes["rounds"])) == ("progressive", 3)
    assert history.samples_seen == small.training.epochs * 48


def test_the_weights_that_were_trained_are_kept(small) -> None:
    ensemble = small.intact()
    *first, last = phases_of(small, noted(small)[0])
    train_phases(ensemble, first, small.data)
    assert last.masks is not None
    trained = ensemble.network.conv1.weight.clone()
    assert not torch.equal(trained, small.network.conv1.weight)
    ensemble.set_masks(last.masks(ensemble))
    assert torch.equal(ensemble.network.conv1.weight, trained)


@pytest.mark.parametrize(
    ("epochs", "rounds", "share", "each"),
    [
        (0, 3, 0.5, [0, 0, 0]),
        (1, 3, 0.5, [0, 0, 1]),
        (4, 1, 0.5, [4]),
        (4, 3, 0.5, [1, 1, 2]),
        (4, 3, 0.25, [1, 1, 3]),  # of which the first two share an epoch
        (4, 2, 0.5, [2, 2]),
        (4, 3, 0.0, [0, 0, 4]),
        (4, 2, 1.0, [3, 1]),
    ],
)
def test_a_share_of_the_epochs_goes_to_the_rounds(small, epochs, rounds, share, each) -> None:

    shorter = replace(small, training=replace(small.training, epochs=epochs))
    phases = phases_of(shorter, noted(small)[0], rounds=rounds, train_share=share)
    assert [phase.config.epochs for phase in phases] == each
    seen = [48 if phase.images is None else len(phase.images) for phase in phases]
    assert sum(images * epochs for images, epochs in zip(seen, each, strict=True)) == 48 * epochs
    assert len({phase.config.seed for phase in phases}) == len(phases)
    assert all(phase.recalibrate == 1 for phase in phases)


def test_one_round_is_flow(small) -> None:
    (phase,) = phases_of(small, noted(small)[0], rounds=1)
    assert phase.config == small.training
    assert phase.masks is not None
    flow = search_masks(small.scores(), small.graph.widths, small.quotas(), small.searching("flow"))
    assert phase.masks(small.intact()).digest() == flow.digest()


def test_relevance_is_measured_inside_the_masks_on_other_images_each_time(small) -> None:
    config = RelevanceConfig(criterion="fisher", samples=8, precision="fp32", seed=2)
    groups = list(small.graph.widths)[:2]
    known = small.scores()
    score = scorer(small.data, config, groups, small.network, known)
    ensemble = small.intact()
    assert score(ensemble, 0) is known
    once, twice = score(ensemble, 1), score(ensemble, 2)
    assert not torch.equal(once[groups[0]], twice[groups[0]])
    train_phases(ensemble, phases_of(small, score)[:2], small.data)
    inside = score(ensemble, 1)
    for name in groups:
        assert (inside[name][~ensemble.masks.masks[name]] == 0).all()
    fresh = scorer(small.data, config, groups, small.network)
    plain = score_relevance(small.intact(), small.data, config, groups=groups).scores
    assert torch.equal(fresh(small.intact(), 0)[groups[0]], plain[groups[0]])


def test_members_drift_apart_by_their_own_scores(small) -> None:
    """Without a price of overlap, members that value the same keep the same, and others do not."""

    def alike(*_: object) -> dict[str, Tensor]:
        return {name: scores[:1].expand(3, -1) for name, scores in small.scores(seed=1).items()}

    def different(*_: object) -> dict[str, Tensor]:
        return small.scores(seed=1)

    ious = []
    for score in (alike, different):
        ensemble = small.intact()
        train_phases(ensemble, phases_of(small, score, lambda_overlap=0.0, train_share=0.0), small.data)
        ious.append(ensemble.masks.mean_iou())
    assert ious[0] == 1.0
    assert ious[1] < 0.8
