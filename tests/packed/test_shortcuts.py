"""Padded shortcuts as convolutions compute what the slices and the padding do."""

import pytest
import torch
from torch import fx

from subnet_search.packed import PackConfig, pack
from subnet_search.packed.grouped_rules import put_channels
from subnet_search.packed.program import Program, aten, operator
from subnet_search.packed.shortcuts import shortcuts_as_convolutions

END = torch.iinfo(torch.int64).max
POSITIONS = torch.tensor([1, 2, 5, 6])


def shortcut(
    slices: list[tuple[int, int, int, int]], apart: bool = False, shape: tuple[int, ...] = (8, 4, 4)
) -> Program:
    """Slices `(axis, start, end, step)` of four channels, put at four of eight places, and the shape that is noted."""
    graph = fx.Graph()
    node = graph.placeholder("x")
    weight = graph.get_attr("weight")
    node = graph.call_function(aten.mul.Tensor, (node, weight))
    if apart:
        node = graph.call_function(aten.unflatten.int, (node, 1, [2, 2]))
    for slicing in slices:
        node = graph.call_function(aten.slice.Tensor, (node, *slicing))
    if apart:
        node = graph.call_function(aten.flatten.using_ints, (node, 1, 2))
    put = graph.call_function(put_channels, (node, graph.get_attr("positions"), 8))
    put.meta["shape"] = shape
    graph.output(put)
    return Program(graph, {"positions": POSITIONS, "weight": torch.full((1,), 2.0)})


def operators(program: Program) -> list[str]:
    return [operator(node) or node.target.__name__ for node in program.graph.nodes if node.op == "call_function"]


@pytest.mark.parametrize(
    ("slices", "apart"),
    [
        ([(2, 0, END, 2), (3, 0, END, 2)], False),
        ([(3, 0, END, 3), (2, 0, END, 2)], False),
        ([(2, 0, END, 2), (3, 0, END, 2), (2, 0, END, 2), (3, 0, END, 1)], False),
        ([(3, 0, END, 2), (4, 0, END, 2)], True),
    ],
)
@pytest.mark.parametrize("side", [8, 9])
def test_a_strided_shortcut_becomes_one_convolution(slices, apart, side) -> None:
    program = shortcut(slices, apart)
    x = torch.randn(3, 4, side, side, generator=torch.Generator().manual_seed(0))
    before = operators(program)
    changed = shortcuts_as_convolutions(program)
    assert operators(changed) == ["mul", "conv2d"]
    assert operators(program) == before  # the program that was given stays
    assert torch.equal(changed.module()(x), program.module()(x))


@pytest.mark.parametrize(
    ("slices", "apart"),
    [
        ([(2, 1, END, 2), (3, 0, END, 2)], False),  # from the second row on
        ([(2, 0, 4, 2), (3, 0, END, 2)], False),  # a part of the rows
        ([(3, 0, END, 2)], False),  # one axis alone
        ([(2, 0, END, 2), (3, 0, END, 2), (1, 0, END, 1)], False),  # channels, too
        ([(2, 0, END, 2), (3, 0, END, 2)], True),  # channels of the members, and rows
        ([], False),
    ],
)
def test_other_paddings_stay(slices, apart) -> None:
    program = shortcut(slices, apart)
    assert operators(shortcuts_as_convolutions(program)) == operators(program)


def test_paddings_of_videos_stay() -> None:
    program = shortcut([(2, 0, END, 2), (3, 0, END, 2)], shape=(8, 4, 4, 4))
    assert operators(shortcuts_as_convolutions(program)) == operators(program)


def test_sums_of_shortcuts_still_work_in_place() -> None:
    program = shortcut([(2, 0, END, 2), (3, 0, END, 2)])
    (node,) = (node for node in shortcuts_as_convolutions(program).graph.nodes if operator(node) == "conv2d")
    assert node.meta["shape"] == (8, 4, 4)


def test_merged_members_of_a_padded_network_have_no_slices_left(make) -> None:
    ensemble = make("padded")
    x = torch.randn(2, *ensemble.graph.example_shape, generator=torch.Generator().manual_seed(4))
    found = pack(ensemble, x, PackConfig(("merged",), seconds=0.0)).network
    assert "slice" not in operators(Program(found.graph, {}))
    grouped = pack(ensemble, x, PackConfig(("grouped",), seconds=0.0)).network
    assert "slice" in operators(Program(grouped.graph, {}))
