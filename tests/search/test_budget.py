import math
from collections.abc import Mapping

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from subnet_search.backbones.resnet import resnet20
from subnet_search.errors import SubnetSearchError
from subnet_search.groups import ChannelGroup, find_groups, macs, trunk_layers
from subnet_search.search import BudgetConfig, allocate_quotas
from subnet_search.search.budget import _allocate


def _group(name: str, width: int, kind: str = "inner") -> ChannelGroup:
    return ChannelGroup(name, width, kind, (), ())


STREAM, FIRST, SECOND = _group("stream", 16, "stream"), _group("first", 32), _group("second", 24)
GROUPS = (STREAM, FIRST, SECOND)
FULL = {group.name: group.width for group in GROUPS}


def _cost(widths: Mapping[str, int]) -> int:
    """Two residual blocks on one stream, between an input of 3 channels and 10 classes."""
    stream = widths["stream"]
    return 3 * stream + 18 * stream * (widths["first"] + widths["second"]) + 10 * stream


def test_inner_groups_are_thinned_and_streams_stay_whole() -> None:
    widths = _allocate(GROUPS, _cost, _cost(FULL), 4, BudgetConfig(budget=2.0))
    assert widths["stream"] == 16
    assert widths["first"] / 32 == pytest.approx(0.5, abs=0.05)
    assert widths["second"] / 24 == pytest.approx(0.5, abs=0.05)


def test_streams_follow_where_the_inner_groups_are_not_enough() -> None:
    widths = _allocate(GROUPS, _cost, _cost(FULL), 4, BudgetConfig(budget=0.1))
    assert widths["stream"] < 16
    assert 4 * _cost(widths) <= 0.1 * _cost(FULL)


def test_uniform_thins_everything_alike() -> None:
    widths = _allocate(GROUPS, _cost, _cost(FULL), 4, BudgetConfig(budget=1.0, spread="uniform"))
    shares = [widths[name] / full for name, full in FULL.items()]
    assert max(shares) - min(shares) < 0.07


@settings(max_examples=80, deadline=None)
@given(
    budget=st.floats(0.08, 6.0),
    members=st.integers(2, 6),
    spread=st.sampled_from(["inner", "uniform"]),
    min_width=st.integers(1, 4),
    multiple_of=st.sampled_from([1, 2, 3, 8, 16]),
)
def test_the_budget_is_never_exceeded_and_nothing_that_fits_is_left(
    budget: float, members: int, spread: str, min_width: int, multiple_of: int
) -> None:
    config = BudgetConfig(budget=budget, spread=spread, min_width=min_width, multiple_of=multiple_of)
    grain = {name: multiple_of if full % multiple_of == 0 else 1 for name, full in FULL.items()}
    smallest = {name: math.ceil(min_width / step) * step for name, step in grain.items()}
    try:
        widths = _allocate(GROUPS, _cost, _cost(FULL), members, config)
    except SubnetSearchError as error:
        assert "cannot be met" in str(error)  # noqa: PT017 (either outcome is right, each is checked)
        assert members * _cost(smallest) > budget * _cost(FULL)
        return
    assert members * _cost(widths) <= budget * _cost(FULL)
    assert all(smallest[name] <= widths[name] <= full for name, full in FULL.items())
    assert all(widths[name] % step == 0 for name, step in grain.items())
    for name, full in FULL.items():
        if widths[name] < full:
            wider = {**widths, name: widths[name] + grain[name]}
            assert members * _cost(wider) > budget * _cost(FULL)


def test_a_budget_for_everything_keeps_everything() -> None:
    assert _allocate(GROUPS, _cost, _cost(FULL), 4, BudgetConfig(budget=4.0)) == FULL
    assert _allocate(GROUPS, _cost, _cost(FULL), 4, BudgetConfig(budget=9.0)) == FULL


def test_decimal_budgets_are_exact() -> None:
    # 0.29 · 100 is 28.999999999999996 in binary
    widths = _allocate((_group("g", 100),), lambda w: w["g"], 100, 29, BudgetConfig(budget=0.29))
    assert widths == {"g": 1}


def test_the_smallest_budget_that_can_be_met_is_told_and_works() -> None:
    with pytest.raises(SubnetSearchError, match=r"cannot be met with 4 members.* 0\.012 times") as caught:
        _allocate(GROUPS, _cost, _cost(FULL), 4, BudgetConfig(budget=0.001))
    told = float(str(caught.value).split("they cost ")[1].split(" times")[0])
    assert _allocate(GROUPS, _cost, _cost(FULL), 4, BudgetConfig(budget=told))
    with pytest.raises(SubnetSearchError, match="cannot be met"):
        _allocate(GROUPS, _cost, _cost(FULL), 4, BudgetConfig(budget=told * 0.98))


def test_one_network_gets_what_each_of_two_gets_of_twice_the_budget() -> None:
    alone = _allocate(GROUPS, _cost, _cost(FULL), 1, BudgetConfig(budget=0.4))
    assert alone == _allocate(GROUPS, _cost, _cost(FULL), 2, BudgetConfig(budget=0.8))
    assert _cost(alone) <= 0.4 * _cost(FULL)


def test_keep_rounds_down_but_not_below_the_minimum() -> None:
    assert _allocate(GROUPS, _cost, _cost(FULL), 4, BudgetConfig(None, keep=0.3)) == {
        "stream": 16,
        "first": 9,
        "second": 7,
    }
    uniform = BudgetConfig(None, keep=0.3, spread="uniform", min_width=8)
    assert _allocate(GROUPS, _cost, _cost(FULL), 4, uniform) == {"stream": 8, "first": 9, "second": 8}
    assert _allocate((_group("g", 10),), _cost, 1, 2, BudgetConfig(None, keep=0.7)) == {"g": 7}
    assert _allocate(GROUPS, _cost, _cost(FULL), 4, BudgetConfig(None, keep=1.0)) == FULL


def test_a_network_of_streams_alone_is_thinned_there() -> None:
    assert _allocate((STREAM,), lambda w: w["stream"], 16, 2, BudgetConfig(budget=1.0)) == {"stream": 8}


@pytest.mark.parametrize(
    ("groups", "members", "config", "message"),
    [
        (GROUPS, 0, BudgetConfig(), "expected at least 1"),
        (GROUPS, 4, BudgetConfig(min_width=17), "min_width is 17, but group 'stream' has 16"),
        ((), 4, BudgetConfig(), "no searchable group"),
    ],
)
def test_what_does_not_fit_is_an_error(groups: tuple, members: int, config: BudgetConfig, message: str) -> None:
    with pytest.raises(SubnetSearchError, match=message):
        _allocate(groups, _cost, _cost(FULL), members, config)


class Squeezed(nn.Module):
    """Between two layers a gate of two channels, as in squeeze-and-excitation blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 12, 3), nn.Conv2d(12, 8, 3)
        self.squeeze, self.excite = nn.Linear(12, 2), nn.Linear(2, 12)
        self.head = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x).relu()
        x = x * self.excite(self.squeeze(x.mean(dim=(2, 3))).relu()).sigmoid()[:, :, None, None]
        return self.head(self.second(x).relu().mean(dim=(2, 3)))


def test_groups_with_fewer_channels_than_members_stay_whole() -> None:
    graph = find_groups(Squeezed().eval(), torch.zeros(2, 3, 8, 8))
    assert graph.widths == {"first": 12, "squeeze": 2, "second": 8}
    quotas = allocate_quotas(graph, 4, BudgetConfig(budget=1.0, spread="uniform"))
    assert quotas["squeeze"] == (2, 2, 2, 2)
    assert quotas["first"][0] < 12
    assert sum(macs(graph, {name: kept[k] for name, kept in quotas.items()}) for k in range(4)) <= graph.dense_macs
    with pytest.raises(SubnetSearchError, match=r"got 13 members, but the widest group .* 'first', has 12 channels"):
        allocate_quotas(graph, 13, BudgetConfig())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"budget": None}, "expected one of them"),
        ({"budget": None, "keep": 0.0}, r"\(0, 1\]"),
        ({"budget": None, "keep": 1.1}, r"\(0, 1\]"),
        ({"budget": 0.0}, "positive"),
        ({"budget": float("nan")}, "positive"),
        ({"min_width": 0}, "at least 1"),
        ({"spread": "outer"}, "'outer'"),
    ],
)
def test_settings_that_cannot_be_are_an_error(settings: dict, message: str) -> None:
    with pytest.raises(SubnetSearchError, match=message):
        BudgetConfig(**settings)


def test_a_kept_fraction_takes_the_place_of_the_budget() -> None:
    assert BudgetConfig().budget == 2.0
    assert BudgetConfig(keep=0.5).budget is None


def test_a_real_network_gets_the_same_widths_for_all_members_within_the_budget() -> None:
    model = resnet20(width=8).eval()
    graph = find_groups(model, torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)))
    quotas = allocate_quotas(graph, 4, BudgetConfig(budget=2.0))
    assert list(quotas) == list(graph.widths)
    assert all(len(quota) == 4 and len(set(quota)) == 1 for quota in quotas.values())
    cost = 4 * macs(graph, {name: quota[0] for name, quota in quotas.items()}) / macs(graph, {})
    assert 1.95 < cost <= 2.0
    for group in graph.groups:
        assert (quotas[group.name][0] == group.width) == (group.kind == "stream")


class GatedPair(nn.Module):
    """SwiGLU (Shazeer 2020): two layers write one group, of which one product is masked."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Linear(6, 8), nn.Linear(8, 4)
        self.w1, self.w3, self.w2 = nn.Linear(8, 16), nn.Linear(8, 16), nn.Linear(16, 8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x + self.w2(F.silu(self.w1(x)) * self.w3(x))
        logits: Tensor = self.head(F.relu(x))
        return logits


def test_a_group_of_which_a_trunk_writes_a_part_stays_whole() -> None:
    graph = find_groups(GatedPair().eval(), torch.zeros(2, 6))
    assert trunk_layers(graph, 0.4) == {"stem", "w1"}
    assert allocate_quotas(graph, 4, BudgetConfig(budget=2.0), trunk=0.3)["w1"][0] < 16
    with pytest.raises(SubnetSearchError, match="no group of channels is left to search"):
        allocate_quotas(graph, 4, BudgetConfig(budget=2.0), trunk=0.4)
