from dataclasses import replace

import pytest
import torch

from subnet_search.backbones import load_backbone
from subnet_search.data import load_data
from subnet_search.ensemble import SubnetEnsemble
from subnet_search.errors import SubnetSearchError
from subnet_search.groups import find_groups
from subnet_search.masks import MaskSet, full_masks
from subnet_search.relevance import RelevanceConfig, score_relevance
from subnet_search.search import BudgetConfig, SearchConfig, allocate_quotas, rescoring, search_in_rounds, search_masks

SCORING = RelevanceConfig(samples=12, nodes=2, precision="fp32")


class Case:
    """Three members of the digits network, and its scores."""

    def __init__(self) -> None:
        backbone = load_backbone("digits")
        self.network = backbone.model
        self.graph = find_groups(backbone.model, torch.zeros(2, 1, 8, 8))
        self.data = load_data("digits", backbone.card).subset(range(100))
        self.card = backbone.card
        self.quotas = allocate_quotas(self.graph, 3, BudgetConfig(budget=1.5))
        self.thinned = [name for name, quota in self.quotas.items() if min(quota) < self.graph[name].width]
        self.scores = score_relevance(self.ensemble(), self.data, SCORING, groups=self.thinned).scores

    def ensemble(self) -> SubnetEnsemble:
        return SubnetEnsemble(self.network, self.graph, full_masks(self.graph.widths, 3), self.card)

    def search(self, config: SearchConfig, scoring: RelevanceConfig = SCORING, **more: object) -> MaskSet:
        scores = more.pop("scores", self.scores)
        settings = {"precision": "fp32", **more}
        return search_in_rounds(self.ensemble(), self.data, scores, self.quotas, config, scoring, **settings)


@pytest.fixture(scope="module")
def case() -> Case:
    return Case()


@pytest.mark.parametrize("algorithm", ["flow", "pairs", "random"])
def test_without_rounds_it_is_the_plain_search(case, algorithm) -> None:
    config = SearchConfig(algorithm)
    plain = search_masks(case.scores, case.graph.widths, case.quotas, config)
    found = case.search(config)
    assert found.digest() == plain.digest()
    assert dict(found.notes) == dict(plain.notes)


@pytest.mark.parametrize("algorithm", ["flow", "draft", "core", "pairs"])
def test_rounds_change_masks_and_keep_quotas(case, algorithm) -> None:
    config = SearchConfig(algorithm, rescoring=2)
    one, two = case.search(config), case.search(config)
    assert one.digest() == two.digest()
    assert one.widths == dict(case.quotas)
    assert one.digest() != case.search(SearchConfig(algorithm)).digest()
    assert [set(entry) for entry in one.notes["rescored"]] == [{"objective", "changed"}] * 2
    assert all(0 < entry["changed"] < 1 for entry in one.notes["rescored"])


def test_channels_that_are_cut_have_statistics_when_they_are_scored(case, monkeypatch) -> None:
    unmeasured = []

    def look(ensemble, *given, **named):
        variances = [m.running_var for m in ensemble.modules() if getattr(m, "running_var", None) is not None]
        unmeasured.append(sum(int((variance == 1).sum()) for variance in variances))
        return score_relevance(ensemble, *given, **named)

    monkeypatch.setattr(rescoring, "score_relevance", look)
    case.search(SearchConfig("flow", rescoring=2))
    assert unmeasured == [0, 0]


@pytest.mark.parametrize("algorithm", ["random", "magnitude", "antirandom"])
def test_controls_have_one_round(case, algorithm, monkeypatch) -> None:
    monkeypatch.setattr(rescoring, "score_relevance", lambda *_, **__: pytest.fail("scored again"))
    config = SearchConfig(algorithm, rescoring=3)
    assert case.search(config).digest() == case.search(replace(config, rescoring=0)).digest()


def test_scores_are_taken_behind_the_masks_and_averaged(case, monkeypatch) -> None:
    seen = []

    def statistics(ensemble):
        means = [m.running_mean for m in ensemble.modules() if getattr(m, "running_mean", None) is not None]
        return torch.cat([mean.flatten() for mean in means])

    def scored(ensemble, _data, config, *, groups, cut, **_):
        seen.append((ensemble.masks.digest(), config.seed, tuple(groups), cut, statistics(ensemble)))
        found = {name: torch.full((3, width), 7.0) for name, width in case.graph.widths.items()}
        return type("Scores", (), {"scores": found})

    monkeypatch.setattr(rescoring, "score_relevance", scored)
    found = case.search(SearchConfig("flow", rescoring=2))
    plain = search_masks(case.scores, case.graph.widths, case.quotas, SearchConfig("flow"))
    assert [entry[0] for entry in seen] == [plain.digest(), seen[1][0]]
    assert seen[0][1] != seen[1][1]
    assert seen[0][2] == tuple(case.thinned)
    assert seen[0][3] is True
    assert not torch.allclose(seen[0][4], statistics(case.ensemble()))
    assert not torch.allclose(seen[0][4], seen[1][4])
    # two thirds of scores that are all alike change no order, but make overlap dearer
    mixed = {n: (s.double() / s.double().mean() + 2) / 3 for n, s in case.scores.items()}
    wanted = search_masks(mixed, case.graph.widths, case.quotas, SearchConfig("flow"))
    assert found.digest() == wanted.digest()


def test_swaps_come_last_and_from_rescored_masks(case) -> None:
    measured = []

    def measure(masks: MaskSet) -> float:
        measured.append(masks)
        return -float(len(measured))  # always better

    depth = {case.graph.branches[0].site: torch.tensor([True, False, True])}
    config = SearchConfig("swap", swaps=5, rescoring=1)
    found = case.search(config, measure=measure, depth=depth)
    rescored = case.search(SearchConfig("flow", rescoring=1), depth=depth)
    assert measured[0].digest() == rescored.digest()
    assert len(measured) == 6
    assert found.digest() == measured[-1].digest()
    assert all(torch.equal(masks.depth[name], kept) for masks in (found, *measured) for name, kept in depth.items())
    assert found.notes["accepted"] == 5


def test_the_correlation_counts_inside_masks(case) -> None:
    config = SearchConfig("flow", rescoring=1)
    plain = case.search(config)
    apart = case.search(config, replace(SCORING, lambda_corr=5.0))
    assert apart.digest() != plain.digest()


def test_scores_that_cannot_be_taken_again_are_an_error(case) -> None:
    with pytest.raises(SubnetSearchError, match=r"cannot be scored by 'taylor'; use relevance\.criterion=ig"):
        case.search(SearchConfig("flow", rescoring=1), RelevanceConfig(criterion="taylor"))
