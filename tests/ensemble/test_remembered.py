"""What follows from a trunk alone is computed once; everything else as if nothing were remembered."""

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from subnet_search.backbones import load_backbone
from subnet_search.ensemble import EnsembleConfig, SubnetEnsemble
from subnet_search.ensemble.remembered import Remembered
from subnet_search.ensemble.thin import ThinEnsemble
from subnet_search.groups import find_groups, trunk_layers
from subnet_search.search import BudgetConfig, SearchConfig, allocate_quotas, search_masks


def known(*shape: int) -> tuple[Remembered, torch.Tensor]:
    memory = Remembered()
    common = torch.randn(*shape, generator=torch.Generator().manual_seed(0)).requires_grad_()
    memory.know(common)
    return memory, common


class Counted(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.calls.append(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    "function",
    [
        lambda x: F.relu(x) + x,
        lambda x: F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 1, 1)),
        lambda x: torch.cat([x, (x.relu() * 2.0)[:, :, :2]], dim=2),
    ],
)
def test_the_same_function_of_the_same_tensors_is_computed_once(function) -> None:
    memory, common = known(2, 3, 3, 3)
    twin = common.detach().clone().requires_grad_()
    with memory:
        first = function(common)
        with Counted() as counted:
            second = function(common)
    assert second is first
    assert counted.calls == []
    (first.sum() + 2 * second.sum()).backward()
    (3 * function(twin).sum()).backward()
    torch.testing.assert_close(common.grad, twin.grad)


def test_other_arguments_are_another_call() -> None:
    memory, common = known(1, 4)
    with memory:
        assert F.pad(common, (1, 1)).shape == (1, 6)
        assert F.pad(common, (1, 2)).shape == (1, 7)
        assert F.leaky_relu(common, negative_slope=0.5) is not F.leaky_relu(common, negative_slope=0.1)


def test_what_depends_on_other_tensors_or_on_chance_is_computed_again() -> None:
    memory, common = known(1, 4)
    own = torch.ones(1, 4)
    with memory:
        assert common + own is not common + own
        assert F.relu(own) is not F.relu(own)
        assert F.dropout(common, 0.5) is not F.dropout(common, 0.5)


def test_gradients_and_kinds_of_arguments_are_told_apart() -> None:
    memory, common = known(2, 4)
    with memory:
        with torch.no_grad():
            assert not F.relu(common).requires_grad
        assert F.relu(common).requires_grad
        assert common[[0, 1]].shape == (2, 4)
        assert common[0, 1].shape == ()
        with torch.inference_mode():
            assert F.silu(common).is_inference()
        assert F.silu(common).requires_grad


def test_tensors_that_were_changed_in_place_count_as_others() -> None:
    memory, common = known(1, 4)
    with memory, torch.no_grad():
        result = F.relu(common)
        wanted = result.clone()
        result += 1  # as a member's code may, with what it takes for its own
        torch.testing.assert_close(F.relu(common), wanted)
        common.neg_()
        torch.testing.assert_close(F.relu(common), (-common).relu() + common)
        torch.testing.assert_close(F.relu(common, inplace=True), common)


def test_training_computes_what_follows_from_the_trunk_once() -> None:
    backbone = load_backbone("resnet20", "random", width=4)
    graph, members = find_groups(backbone.model, torch.zeros(2, 3, 32, 32)), 3
    quotas = allocate_quotas(graph, members, BudgetConfig(1.0), trunk=0.68)
    masks = search_masks(None, graph.widths, quotas, SearchConfig("random"))
    thin = ThinEnsemble(SubnetEnsemble(backbone.model, graph, masks, backbone.card, EnsembleConfig(trunk=0.68)))
    thin.train()
    with Counted() as counted:
        thin(torch.zeros(2, 3, 32, 32))
    norms = [name for name in trunk_layers(graph, 0.68) if "bn" in name]  # each is followed by an activation
    assert len(norms) == 12
    assert counted.calls.count("relu") == len(norms) + members * (19 - len(norms))
