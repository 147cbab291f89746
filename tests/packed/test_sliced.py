"""What members have in common is computed once."""

import sys
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from subnet_search.ensemble import EnsembleConfig
from subnet_search.ensemble.plain_layers import layer_ranks
from subnet_search.groups.atoms import is_depthwise
from subnet_search.masks import MaskSet
from subnet_search.packed.member import slice_member
from subnet_search.packed.program import operator
from subnet_search.packed.sliced import join_members, shared_stem
from subnet_search.packed.trace_members import trace_members


def programs_of(ensemble):
    ranks, masks = layer_ranks(ensemble), ensemble.masks.masks
    own = [{name: mask[k] for name, mask in masks.items()} for k in range(ensemble.members)]
    return trace_members(
        [slice_member(ensemble, k, kept, ranks) for k, kept in enumerate(own)],
        torch.randn(2, *ensemble.graph.example_shape, generator=torch.Generator().manual_seed(0)),
    )


def whole_but(name, halves):
    """Masks that are whole in all groups but one."""

    def masks(graph):
        drawn = halves(graph)
        return replace(drawn, masks={g: m if g == name else torch.ones_like(m) for g, m in drawn.masks.items()})

    return masks


def count(program, name: str) -> int:
    return sum(operator(node) == name for node in program.graph.nodes)


def test_layers_before_the_first_difference_are_computed_once(make, halves) -> None:
    shared = make("vgg", whole_but("9", halves), EnsembleConfig(norm="shared"))
    joined = join_members(programs_of(shared))
    assert (count(joined, "conv2d"), count(joined, "linear")) == (2, 6)
    own = make("vgg", whole_but("9", halves))
    assert count(join_members(programs_of(own)), "conv2d") == 6


def test_norms_behind_what_all_members_share(make, halves) -> None:
    ensemble = make("vgg", whole_but("9", halves))
    programs = programs_of(ensemble)
    stem = shared_stem(programs)
    assert stem == ["batch_norm"]
    joined = join_members(programs, stem)
    assert (count(joined, "conv2d"), count(joined, "batch_norm")) == (4, 3)
    assert shared_stem(programs_of(make("vgg", whole_but("0", halves)))) == []


@pytest.fixture
def traces(monkeypatch) -> list[int]:
    """One number for each network that is traced from here on."""
    module = sys.modules["subnet_search.packed.trace_members"]
    calls: list[int] = []
    right = module.trace_program
    monkeypatch.setattr(module, "trace_program", lambda *a: calls.append(1) or right(*a))
    return calls


def test_one_trace_serves_members_of_all_widths_and_paddings(unequal, traces) -> None:
    programs = programs_of(unequal)
    x = torch.randn(2, *unequal.graph.example_shape, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = unequal(x)
        for k, program in enumerate(programs):
            assert (program.module()(x) - expected[k]).abs().max() <= 1e-4 * expected[k].abs().max()
    # the program of a depthwise convolution says how many channels it has
    assert len(traces) == 1 or any(is_depthwise(module) for module in unequal.modules())


class Counted(nn.Module):
    """A width is written into its program, though not into its code."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.head = nn.Linear(4, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.hidden(x))
        return self.head(x.view(x.shape[0], 1, x.shape[1]).squeeze(1))


def test_a_program_with_a_width_in_it_is_not_reused_for_another(build, traces) -> None:
    def masks(graph):
        (name,) = graph.widths
        return MaskSet({name: torch.arange(6) < torch.tensor([2, 2, 5])[:, None]}, "by hand")

    ensemble = build(Counted(), (4,), masks)
    programs = programs_of(ensemble)
    assert len(traces) == 2
    x = torch.randn(3, 4, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        for k, program in enumerate(programs):
            assert torch.allclose(program.module()(x), ensemble(x)[k], atol=1e-5)
