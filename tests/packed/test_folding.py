"""Programs without norms, zero branches and copies compute the same."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from subnet_search.groups import SlicedNetwork
from subnet_search.packed.folding import drop_zero_branches, fold_norms, work_in_place
from subnet_search.packed.program import Program, operator, trace_program


def traced(network: nn.Module, *shape: int) -> tuple[Program, Tensor, Tensor]:
    """The program in float64, an input, and what the network says of it."""
    network = network.double()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for tensor in (*network.parameters(), *network.buffers()):
            if tensor.is_floating_point():
                tensor.copy_(torch.rand(tensor.shape, generator=generator, dtype=torch.float64) + 0.1)
    x = torch.randn(3, *shape, generator=generator, dtype=torch.float64)
    network.eval()
    with torch.no_grad():
        return trace_program(SlicedNetwork(network, (), {}), x), x, network(x)


def operations(program: Program) -> list[str]:
    return [operator(node) for node in program.graph.nodes if operator(node)]


@pytest.mark.parametrize(
    ("network", "shape", "folds"),
    [
        (nn.Sequential(nn.Conv2d(3, 4, 3, groups=1), nn.BatchNorm2d(4)), (3, 5, 5), True),
        (nn.Sequential(nn.Conv2d(4, 8, 3, groups=4, bias=False), nn.BatchNorm2d(8)), (4, 5, 5), True),
        (nn.Sequential(nn.Conv1d(3, 4, 3), nn.BatchNorm1d(4, affine=False)), (3, 7), True),
        (nn.Sequential(nn.ConvTranspose2d(3, 4, 2), nn.BatchNorm2d(4)), (3, 5, 5), True),
        (nn.Sequential(nn.ConvTranspose2d(4, 4, 2, groups=2), nn.BatchNorm2d(4)), (4, 5, 5), False),
        (nn.Sequential(nn.Linear(5, 4, bias=False), nn.BatchNorm1d(4, affine=False)), (5,), True),
        (nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(6)), (6, 5), False),
        (nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 3)), (3, 5, 5), False),
        (nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=False)), (3, 5, 5), False),
    ],
)
def test_a_norm_is_folded_exactly_or_left(network, shape, folds) -> None:
    program, x, expected = traced(network, *shape)
    folded = fold_norms(program)
    assert ("batch_norm" not in operations(folded)) is folds
    assert torch.allclose(folded.module()(x), expected, rtol=1e-12)
    assert "batch_norm" in operations(program)


def test_a_norm_stays_where_another_reads_the_layer_or_when_told() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

        def forward(self, x: Tensor) -> Tensor:
            out = self.conv(x)
            return out * self.norm(out)

    assert "batch_norm" in operations(fold_norms(traced(Twice(), 3, 4, 4)[0]))
    program = traced(nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)), 3, 4, 4)[0]
    assert "batch_norm" in operations(fold_norms(program, keep=["batch_norm"]))


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner, self.norm = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Tensor:
        out = self.norm(F.relu(self.inner(x)))
        out += x
        return F.relu(out)


def test_a_branch_of_zeros_is_left_out_with_all_that_leads_to_it() -> None:
    program, x, _ = traced(Residual(), 3, 4, 4)
    assert operations(drop_zero_branches(program)) == operations(program)
    nothing = {name: torch.zeros(3, dtype=torch.float64) for name in ("norm_weight", "norm_bias")}
    trimmed = drop_zero_branches(Program(program.graph, {**program.tensors, **nothing}))
    assert operations(trimmed) == ["relu"]
    assert trimmed.module()(x).equal(F.relu(x))


class Placed(nn.Module):
    """Adds what is made of parameters alone, the same for every image, on either side and to a branch."""

    def __init__(self) -> None:
        super().__init__()
        self.place, self.scale = nn.Parameter(torch.empty(1, 3, 4, 4)), nn.Parameter(torch.empty(1))
        self.inner = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        out = self.place * self.scale + x
        out = self.inner(out) + self.place * self.scale
        return F.relu(self.inner(out) + F.relu(self.place * self.scale))


def test_what_has_no_batch_is_no_place_for_what_has() -> None:
    program, x, expected = traced(Placed(), 3, 4, 4)
    changed = work_in_place(program)
    assert operations(changed).count("add_") == 2  # into what the convolutions wrote
    assert torch.allclose(changed.module()(x), expected, rtol=1e-12)
    nothing = {name: torch.zeros_like(program.tensors[name]) for name in ("inner_weight", "inner_bias")}
    trimmed = drop_zero_branches(Program(program.graph, {**program.tensors, **nothing}))
    assert trimmed.module()(x).shape == expected.shape


def test_in_place_work_changes_neither_the_input_nor_the_answer() -> None:
    program, x, expected = traced(nn.Sequential(Residual(), Residual()), 3, 4, 4)
    changed, before = work_in_place(fold_norms(program)), x.clone()
    assert {"relu_", "add_"} <= set(operations(changed))
    assert torch.allclose(changed.module()(x), expected, rtol=1e-12)
    assert x.equal(before)
