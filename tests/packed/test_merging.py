"""Joined groups compute what the narrow ones do, zeros and all."""

import sys

import pytest
import torch
from torch import nn

from subnet_search.packed import PackConfig, pack
from subnet_search.packed.merging import CHANNELS, merge_groups
from subnet_search.packed.program import CONVOLUTIONS, Program, arguments, operator, trace_program


def program_of(layer: nn.Module, channels: int, axes: int = 2) -> tuple[Program, torch.Tensor]:
    x = torch.randn(3, channels, *[9] * axes, generator=torch.Generator().manual_seed(0))
    return trace_program(layer.eval(), x), x


def groups_of(program: Program) -> list[int]:
    return [arguments(node)["groups"] for node in program.graph.nodes if operator(node) in CONVOLUTIONS]


@pytest.mark.parametrize(
    ("layer", "channels", "left"),
    [
        (nn.Conv2d(16, 16, 3, groups=4), 16, 1),  # 4 channels each: all of them
        (nn.Conv2d(32, 64, 3, 2, 1, groups=8, bias=False), 32, 2),  # 4 in, 8 out: the narrower side decides
        (nn.Conv2d(24, 12, 3, dilation=2, groups=6), 24, 1),  # fewer than enough even when all are one
        (nn.Conv2d(36, 72, 1, padding="same", groups=6), 36, 2),  # 6 in: two are too few, three are enough
        (nn.Conv1d(20, 40, 3, groups=5), 20, 1),
    ],
)
def test_groups_are_joined_until_they_are_wide(layer, channels, left) -> None:
    program, x = program_of(layer, channels, axes=layer.weight.ndim - 2)
    before = groups_of(program)
    merged = merge_groups(program)
    assert groups_of(merged) == [left]
    assert groups_of(program) == before  # the program that was given stays
    with torch.no_grad():
        torch.testing.assert_close(merged.module()(x), layer(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("layer", "channels"),
    [
        (nn.Conv2d(8, 8, 3), 8),  # one group
        (nn.Conv2d(8, 8, 3, groups=8), 8),  # depthwise
        (nn.Conv2d(2 * CHANNELS, 2 * CHANNELS, 3, groups=2), 2 * CHANNELS),
        (nn.ConvTranspose2d(8, 8, 3, groups=4), 8),
    ],
)
def test_what_is_wide_or_special_stays(layer, channels) -> None:
    assert merge_groups(program_of(layer, channels)[0]) is None


def test_every_architecture_with_joined_groups(unequal, monkeypatch) -> None:
    monkeypatch.setattr(sys.modules["subnet_search.packed.pack"], "PADDING", float("inf"))
    x = torch.randn(3, *unequal.graph.example_shape, generator=torch.Generator().manual_seed(4))
    both = pack(unequal, x, PackConfig(("grouped", "merged"), seconds=0.0))
    assert set(both.report.unavailable) <= {"merged"}
    if both.report.unavailable:
        found = [arguments(node)["groups"] for node in both.network.graph.nodes if operator(node) in CONVOLUTIONS]
        assert all(groups == 1 or groups > unequal.members for groups in found)  # of linear layers, or depthwise
        return
    packed = pack(unequal, x, PackConfig(("merged",), seconds=0.0))
    assert packed.form.shape == "merged"
    with torch.no_grad():
        expected, got = unequal(x), packed(x)
    assert (got - expected).abs().max() <= 1e-4 * expected.abs().max()
