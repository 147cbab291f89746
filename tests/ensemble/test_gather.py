"""Parts of shared tensors, against indexing one member at a time."""

import pytest
import torch
from torch import nn

from subnet_search.ensemble.gather import Gather
from subnet_search.ensemble.thin_member import Places


def places(**axes: list[int]) -> Places:
    return tuple((int(name[1:]), torch.tensor(positions)) for name, positions in axes.items())


PARTS = {
    "rows": (False, (5, 4, 3), [(0, places(a0=[0, 3])), (1, places(a0=[1, 2, 4])), (2, places(a0=[0]))]),
    "columns": (False, (5, 4, 3), [(0, places(a1=[0, 3])), (1, ()), (2, places(a1=[2]))]),
    "both": (False, (5, 4, 3), [(0, places(a0=[0, 3], a1=[1])), (1, places(a1=[1, 2])), (2, ())]),
    "whole": (False, (5, 4, 3), [(0, ()), (2, ())]),
    "own rows": (True, (3, 5), [(0, places(a0=[0, 3])), (2, places(a0=[1, 2, 4]))]),
    "own columns": (True, (3, 5, 4), [(0, places(a1=[0, 3])), (1, ()), (2, places(a1=[1]))]),
    "own, whole": (True, (3, 5), [(1, ()), (2, ())]),
}


@pytest.mark.parametrize("name", PARTS)
def test_parts_and_gradients_are_those_of_indexing(name) -> None:
    owned, shape, parts = PARTS[name]
    module = nn.Module()
    values = torch.arange(float(torch.Size(shape).numel())).view(shape)
    module.weight = nn.Parameter(values.clone())
    twin = values.clone().requires_grad_()
    expected = []
    for member, chosen in parts:
        part = twin[member] if owned else twin
        for axis, positions in chosen:
            part = part.movedim(axis, 0)[positions].movedim(0, axis)
        expected.append(part)
    got = Gather(module, "weight", owned, parts, torch.device("cpu")).read()
    assert len(got) == len(parts)
    for ours, theirs in zip(got, expected, strict=True):
        assert torch.equal(ours, theirs)
    (gradient,) = torch.autograd.grad(sum((part.square() * (k + 1)).sum() for k, part in enumerate(got)), module.weight)
    (wanted,) = torch.autograd.grad(sum((part.square() * (k + 1)).sum() for k, part in enumerate(expected)), twin)
    assert torch.equal(gradient, wanted)


@pytest.mark.parametrize("name", ["own rows", "own, whole"])
def test_what_is_changed_in_place_is_written_back(name) -> None:
    owned, shape, parts = PARTS[name]
    module = nn.Module()
    module.register_buffer("running_mean", torch.zeros(shape))
    gather = Gather(module, "running_mean", owned, parts, torch.device("cpu"))
    expected = torch.zeros(shape)
    for (member, chosen), part in zip(parts, gather.read(), strict=True):
        part += member + 1
        for positions in [positions for _, positions in chosen] or [torch.arange(shape[1])]:
            expected[member, positions] = member + 1.0
    gather.write()
    assert torch.equal(module.running_mean, expected)


def test_the_tensor_is_looked_up_on_each_reading() -> None:
    module = nn.Linear(2, 2)
    gather = Gather(module, "weight", False, PARTS["whole"][2], torch.device("cpu"))
    module.weight = nn.Parameter(torch.ones(2, 2))
    assert all(part is module.weight for part in gather.read())
